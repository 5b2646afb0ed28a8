//! The search beside simpler methods on simulated queues of known limits: prints the table of docs/measurement.md, or
//! finds the limits by long holds.

use clap::{Parser, ValueEnum};
use plimsoll_tests::simulation::methods::Method;
use plimsoll_tests::simulation::queue::Regime;
use plimsoll_tests::simulation::table::FRESH;
use plimsoll_tests::simulation::{table, truth};
use std::ops::Range;

/// How often each method finds the largest rate, and how long it takes.
#[derive(Debug, Parser)]
#[command(name = "search-table", version)]
struct Args {
    /// Runs of each method in each regime
    #[arg(long, default_value_t = 600)]
    seeds: u64,
    /// The first seed: the search was tuned on those below the default
    #[arg(long, default_value_t = FRESH)]
    first: u64,
    /// The queues
    #[arg(long, value_enum, value_delimiter = ',', default_value = "clean,drift,stalls,rare-stalls")]
    queues: Vec<Regime>,
    /// Print each run in place of the table: method, queue, seed, load in seconds, passed, tripped, conclusive
    #[arg(long)]
    each: bool,
    /// The methods, in the order of their rows
    #[arg(long, value_enum, value_delimiter = ',', default_value = "search-5,search-10,steps,bisect")]
    methods: Vec<Row>,
    /// Find the queues' limits by holds of so many seconds in all in place of the table
    #[arg(long, value_name = "SECONDS")]
    limits: Option<usize>,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    /// The search at 5 %.
    #[value(name = "search-5")]
    Search5,
    /// The search at 10 %.
    #[value(name = "search-10")]
    Search10,
    /// Fixed steps.
    Steps,
    /// Bisection by holds of 60 s.
    Bisect,
}

impl Row {
    fn method(self) -> Method {
        match self {
            Self::Search5 => Method::Search(0.05),
            Self::Search10 => Method::Search(0.1),
            Self::Steps => Method::Steps,
            Self::Bisect => Method::Bisect,
        }
    }
}

fn main() {
    let args = Args::parse();
    let names = args.queues.iter().map(|queue| queue.name()).collect::<Vec<_>>().join(" | ");
    let seeds = args.first..args.first + args.seeds;
    match args.limits {
        Some(seconds) => limits(&args.queues, seconds),
        None if args.each => args.methods.iter().for_each(|row| each(row.method(), &args.queues, &seeds)),
        None => {
            println!("| method | {names} |\n|---|{}", "---|".repeat(args.queues.len()));
            args.methods.iter().for_each(|row| println!("{}", table::row(row.method(), &args.queues, &seeds)));
        }
    }
}

fn limits(queues: &[Regime], seconds: usize) {
    println!("| queue | limit | standard error | seconds held | stands in the table |\n|---|---|---|---|---|");
    for &queue in queues {
        let truth::Measured { limit, error, held } = truth::measure(queue, seconds);
        println!("| {} | {limit:.0} | {error:.0} | {held:.0} | {:.0} |", queue.name(), truth::true_limit(queue));
    }
}

fn each(method: Method, queues: &[Regime], seeds: &Range<u64>) {
    for &queue in queues {
        for (seed, found) in seeds.clone().zip(table::runs(method, queue, seeds.clone())) {
            let level = |level: Option<f64>| level.map_or(String::new(), |level| level.to_string());
            let (passed, tripped) = (level(found.passed), level(found.tripped));
            println!(
                "{},{},{seed},{:.1},{passed},{tripped},{}",
                method.name(),
                queue.name(),
                found.load,
                found.conclusive
            );
        }
    }
}
