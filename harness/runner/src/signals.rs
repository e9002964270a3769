//! A runtime for long work that the user can interrupt. Everything runs on the thread that made it,
//! since guests die with that thread.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Runs futures. SIGINT and SIGTERM set a flag that the future watches; a second one drops the future.
pub struct InterruptibleRuntime {
    runtime: Runtime,
    int: Signal,
    term: Signal,
    interrupted: watch::Sender<bool>,
    /// The same flag for threads that poll it.
    stop: Arc<AtomicBool>,
    on_interrupt: fn(),
}

impl InterruptibleRuntime {
    /// A runtime on this thread. `on_interrupt` is called at the first signal.
    ///
    /// # Errors
    /// The system's error where signals cannot be listened to.
    pub fn new(on_interrupt: fn()) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let guard = runtime.enter();
        let (int, term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        drop(guard);
        let interrupted = watch::Sender::new(false);
        Ok(Self { runtime, int, term, interrupted, stop: Arc::default(), on_interrupt })
    }

    /// Turns true at the first signal.
    #[must_use]
    pub fn interrupted(&self) -> watch::Receiver<bool> {
        self.interrupted.subscribe()
    }

    /// Turns true at the first signal, for threads that poll.
    #[must_use]
    pub fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Runs a future to its end. `None` after a second signal, or where one came before this call and
    /// another one during it.
    pub fn run<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let Self { runtime, int, term, interrupted, stop, on_interrupt } = self;
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
                interrupted.send_replace(true);
                on_interrupt();
            }
        })
    }

    /// Whether a signal came.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};

    #[test]
    fn notices_a_signal_from_the_start() {
        let mut runtime = InterruptibleRuntime::new(|| ()).unwrap();
        let mut interrupted = runtime.interrupted();
        // What is run is not polled before the signal would end this process.
        kill_process(getpid(), Signal::TERM).unwrap();
        let noticed = runtime
            .run(async move { interrupted.wait_for(|interrupted| *interrupted).await.is_ok() });
        assert_eq!(noticed, Some(true));
        assert!(runtime.is_stopped());
    }

    #[test]
    fn drops_the_future_at_the_second_signal() {
        let mut runtime = InterruptibleRuntime::new(|| ()).unwrap();
        let mut interrupted = runtime.interrupted();
        kill_process(getpid(), Signal::TERM).unwrap();
        let again = async move {
            interrupted.wait_for(|interrupted| *interrupted).await.unwrap();
            kill_process(getpid(), Signal::TERM).unwrap();
            std::future::pending::<()>().await;
        };
        assert_eq!(runtime.run(again), None);
    }
}
