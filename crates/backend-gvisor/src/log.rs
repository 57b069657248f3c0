//! What runsc and the runner write for the operator. Not trusted, so bounded: the beginning is kept, of the rest a
//! little is swallowed, and then the pipe is closed on them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What is kept: runsc says what is wrong in its first lines.
const KEPT_BYTES: usize = 4096;
/// What is read at all.
const READ_BYTES: usize = 1024 * 1024;

/// The kept part.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Reads to the end, or to the bound.
    pub(crate) async fn follow(self, mut pipe: impl AsyncRead + Unpin) {
        let mut buffer = [0; 1024];
        let mut total = 0;
        while total < READ_BYTES {
            match pipe.read(&mut buffer).await {
                Ok(read @ 1..) => {
                    total += read;
                    let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = KEPT_BYTES.saturating_sub(kept.len()).min(read);
                    kept.extend_from_slice(&buffer[..room]);
                }
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// As text, without what a terminal would obey.
    pub(crate) fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_is_cut_and_read_no_further_than_its_bound() {
        let log = Log::default();
        let flood = tokio::io::repeat(b'x').take(u64::MAX);
        log.clone().follow(flood).await;
        assert_eq!(log.text().len(), KEPT_BYTES);
    }

    #[tokio::test]
    async fn escape_sequences_are_made_visible() {
        let log = Log::default();
        log.clone().follow(&b"a\x1b[2Jb\nc"[..]).await;
        assert_eq!(log.text(), "a\u{fffd}[2Jb\nc");
    }
}
