//! Work that takes long, done so that signals are heard meanwhile. All on this thread: guests are tied
//! to its life.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Runs futures, and tells them of the user's interrupt; a second one drops them.
pub(crate) struct Hearing {
    runtime: Runtime,
    int: Signal,
    term: Signal,
    tell: watch::Sender<bool>,
    /// The same, for threads that ask.
    stop: Arc<AtomicBool>,
}

impl Hearing {
    pub(crate) fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let guard = runtime.enter();
        let (int, term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        drop(guard);
        Ok(Self { runtime, int, term, tell: watch::Sender::new(false), stop: Arc::default() })
    }

    pub(crate) fn interrupted(&self) -> watch::Receiver<bool> {
        self.tell.subscribe()
    }

    pub(crate) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Runs a future to its end; `None` where the user did not wait for that, or had stopped it before.
    pub(crate) fn run<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let Self { runtime, int, term, tell, stop } = self;
        runtime.block_on(async {
            tokio::pin!(work);
            loop {
                tokio::select! {
                    biased;
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                    done = &mut work => return Some(done),
                }
                if stop.swap(true, Ordering::Relaxed) {
                    return None;
                }
                tell.send_replace(true);
                errln!("dmarig: ending what runs; once more ends at once");
            }
        })
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};

    #[test]
    fn a_signal_is_heard_from_the_first_moment_on() {
        let mut hearing = Hearing::new().unwrap();
        let mut interrupted = hearing.interrupted();
        // What is run is not polled before the signal would end this process.
        kill_process(getpid(), Signal::TERM).unwrap();
        let told = hearing.run(async move { interrupted.wait_for(|told| *told).await.is_ok() });
        assert_eq!(told, Some(true));
        assert!(hearing.is_stopped());
    }

    #[test]
    fn who_insists_does_not_wait() {
        let mut hearing = Hearing::new().unwrap();
        let mut interrupted = hearing.interrupted();
        kill_process(getpid(), Signal::TERM).unwrap();
        let again = async move {
            interrupted.wait_for(|told| *told).await.unwrap();
            kill_process(getpid(), Signal::TERM).unwrap();
            std::future::pending::<()>().await;
        };
        assert_eq!(hearing.run(again), None);
    }
}
