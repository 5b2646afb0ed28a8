//! How much of a proof is run.

/// Whether the whole matrices are wanted (`make prove`, which sets PLIMSOLL_PROVE=1), or a short case of each.
pub fn whole() -> bool {
    std::env::var("PLIMSOLL_PROVE").is_ok_and(|value| value == "1")
}

/// What a test says that is too long for every day, and of which another test holds a short case.
pub const ELSEWHERE: &str = "a proof of `make prove`: nothing was tried here";
