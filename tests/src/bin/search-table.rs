//! The search beside simpler methods on simulated queues of known limits: prints the table of docs/measurement.md.

use clap::Parser;
use plimsoll_tests::simulation::methods::Method;
use plimsoll_tests::simulation::queue::Regime;
use plimsoll_tests::simulation::table;

/// How often each method finds the largest rate, and how long it takes.
#[derive(Debug, Parser)]
#[command(name = "search-table", version)]
struct Args {
    /// Runs of each method in each regime
    #[arg(long, default_value_t = 600)]
    seeds: u64,
    /// Only the search, without the simpler methods
    #[arg(long)]
    search_only: bool,
}

fn main() {
    let args = Args::parse();
    println!("| method | {} |\n|---|---|---|---|---|", Regime::ALL.map(Regime::name).join(" | "));
    let searches = [Method::Search(0.05), Method::Search(0.1)];
    let simpler = if args.search_only { &[][..] } else { &[Method::Steps, Method::Bisect] };
    for &method in searches.iter().chain(simpler) {
        println!("{}", table::row(method, args.seeds));
    }
}
