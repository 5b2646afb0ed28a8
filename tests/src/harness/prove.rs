//! How much of a proof is run.

/// Whether the whole matrices are wanted (`make prove`, which sets PLIMSOLL_PROVE=1), or a short case of each.
pub fn whole() -> bool {
    std::env::var("PLIMSOLL_PROVE").is_ok_and(|value| value == "1")
}
