//! A descriptor that becomes readable when something has happened.

use std::{io, os::fd::OwnedFd};

use rustix::io::Errno;
use tokio::io::{Interest, unix::AsyncFd};

/// See the module.
#[derive(Debug)]
pub(crate) struct Bell(AsyncFd<OwnedFd>);

impl Bell {
    /// Takes the descriptor. In the context of a runtime.
    #[expect(unsafe_code, reason = "the safe constructors are deprecated")]
    pub(crate) fn hang(descriptor: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is owned, and is neither replaced nor closed before the `AsyncFd` that owns it.
        Ok(Self(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?))
    }

    /// Waits until it is readable, and leaves it so.
    pub(crate) async fn hear(&self) -> io::Result<()> {
        self.0.readable().await?.retain_ready();
        Ok(())
    }

    /// Waits until it is readable, and takes away what is there. May ring once too often.
    pub(crate) async fn ring(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut bytes = [0; 512];
        // What it says is not looked at.
        if matches!(rustix::io::read(self.0.get_ref(), &mut bytes), Err(Errno::AGAIN)) {
            ready.clear_ready();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[tokio::test]
    async fn it_rings_for_what_happened_and_then_is_silent() {
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let bell = Bell::hang(event.try_clone().unwrap()).unwrap();
        rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
        bell.hear().await.unwrap();
        bell.ring().await.unwrap();
        let silent = async {
            // One ring too many is allowed.
            bell.ring().await.unwrap();
            bell.ring().await.unwrap();
        };
        assert!(tokio::time::timeout(Duration::from_millis(50), silent).await.is_err());
    }
}
