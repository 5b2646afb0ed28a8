use plimsoll_tests::simulation::{
    methods::{plan, search},
    queue::{Queue, Regime},
};
fn main() {
    let a: Vec<u64> = std::env::args().skip(1).map(|s| s.parse().unwrap()).collect();
    for &seed in &a {
        let (f, s) = search(Queue::new(Regime::Drift, seed), &plan(0.05));
        println!("== {seed} {f:?}");
        for l in plimsoll::report::search::trail_lines(&s) {
            println!("{}", l.replace("p99 5ms", ""));
        }
    }
}
