//! Tries again what may work a little later.

use std::time::Duration;

use tokio::time::sleep;

const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Tries so often at most, each pause twice the one before, as long as what goes wrong passes. Only for what may be done twice.
///
/// # Errors
/// The last try's, or the first that does not pass.
pub async fn retried<T, E, F: Future<Output = Result<T, E>>>(
    tries: u32,
    passes: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..tries {
        match attempt().await {
            Err(error) if passes(&error) => sleep(pause).await,
            other => return other,
        }
        pause *= 2;
    }
    attempt().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again_and_what_does_not_ends_it() {
        for (errors, tried, ends) in [
            (&[][..], 1, Ok(())),
            (&["busy"][..], 2, Ok(())),
            (&["busy", "busy", "busy"][..], 3, Err("busy")),
            (&["busy", "refused", "busy"][..], 2, Err("refused")),
        ] {
            let mut tries = 0;
            let attempt = || {
                tries += 1;
                std::future::ready(errors.get(tries - 1).map_or(Ok(()), |error| Err(*error)))
            };
            assert_eq!(retried(3, |error| *error == "busy", attempt).await, ends, "{errors:?}");
            assert_eq!(tries, tried, "{errors:?}");
        }
    }
}
