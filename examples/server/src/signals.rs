//! The signals of the operating system.
//!
//! They are taken over before anything listens: until then each of them ends the process at once.

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT: stop.
pub(crate) struct Terminations {
    #[cfg(unix)]
    terminate: Signal,
    #[cfg(unix)]
    interrupt: Signal,
}

/// SIGHUP: reload.
pub(crate) struct Hangups {
    #[cfg(unix)]
    hangup: Signal,
}

/// Takes the signals over.
///
/// # Errors
/// What the operating system says.
#[cfg(unix)]
pub(crate) fn take() -> std::io::Result<(Terminations, Hangups)> {
    let terminations = Terminations {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    let hangup = signal(SignalKind::hangup())?;
    Ok((terminations, Hangups { hangup }))
}

/// Takes the signals over, as far as there are any.
#[cfg(not(unix))]
pub(crate) fn take() -> std::io::Result<(Terminations, Hangups)> {
    Ok((Terminations {}, Hangups {}))
}

impl Terminations {
    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Hangups {
    /// Waits for the next one; `false` when none can come any more.
    pub(crate) async fn next(&mut self) -> bool {
        #[cfg(unix)]
        return self.hangup.recv().await.is_some();
        #[cfg(not(unix))]
        false
    }
}
