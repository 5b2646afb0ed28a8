//! What a panic comes to. A panic is a bug of ours, and whoever had it works no more: it is never swallowed.

use std::cell::RefCell;
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;

use super::logs;

/// What else a process does that is about more than its agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing: it ends at once, so that its coordinator sees a lost agent, and whoever started it can start it anew.
    Abort,
    /// It has a report to write: whoever heeds the thread is told, and the thread alone ends.
    GoOn,
}

type Heed = Box<dyn Fn(&str)>;

thread_local! {
    /// Who is told of panics on this thread, also of those that a runtime catches.
    static HEED: RefCell<Option<Heed>> = const { RefCell::new(None) };
}

/// Words of the process's first panic.
static FIRST: OnceLock<String> = OnceLock::new();

/// Has this process say what every panic was, and then do this.
pub fn watch(after: After) {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        let words = words(info);
        if after == After::Abort {
            logs::say(format_args!("error: {words}; this is a bug of this program, which ends here"));
            std::process::abort();
        }
        FIRST.get_or_init(|| words.clone());
        // A thread on its last way has nobody any more, and nothing may panic here.
        let _ = HEED.try_with(|heed| {
            if let Ok(heed) = heed.try_borrow()
                && let Some(heed) = &*heed
            {
                heed(&words);
            }
        });
    }));
}

/// Has somebody told of every panic on the calling thread, where the process goes on after one.
pub fn heed_this_thread(heed: impl Fn(&str) + 'static) {
    HEED.with(|own| *own.borrow_mut() = Some(Box::new(heed)));
}

/// What the first panic of this process was, if there was one and the process went on.
pub fn first() -> Option<&'static str> {
    FIRST.get().map(String::as_str)
}

fn words(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
    let why = info.payload_as_str().unwrap_or("no reason that is text");
    format!("a panic{place}: {why}")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_panic_of_a_task_that_the_runtime_catches_is_told_on() {
        watch(After::GoOn);
        let (told, heard) = mpsc::channel();
        let worker = std::thread::spawn(move || {
            heed_this_thread(move |words| told.send(words.to_owned()).unwrap());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let local = tokio::task::LocalSet::new();
            let task =
                local.run_until(async { tokio::task::spawn_local(async { panic!("an odd {}", "reply") }).await });
            assert!(runtime.block_on(task).is_err());
        });
        worker.join().unwrap();
        let words: Vec<String> = heard.iter().collect();
        assert!(
            matches!(&words[..], [words] if words.starts_with("a panic at ") && words.ends_with(": an odd reply")),
            "{words:?}"
        );
        assert!(first().is_some());
        // What nobody heeds is nobody's worker.
        assert!(std::thread::spawn(|| panic!("of nobody")).join().is_err());
    }
}
