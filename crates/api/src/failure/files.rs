//! Refusals of files.

use engine::{ArtifactError, FileError};
use wire::{ErrorCode, FieldError};

use super::Failure;

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        match error {
            FileError::NoSession => Self::not_found(),
            FileError::NotRunning => Self::new(
                ErrorCode::WrongState,
                "the session's program does not run: files are there only while it does",
            ),
            FileError::Invalid(faults) => Self::invalid(faults),
            FileError::Absent => Self::new(ErrorCode::NotFound, "there is no such file"),
            FileError::WrongKind => Self::new(
                ErrorCode::NotAFile,
                "it is no regular file, or something on the way to it is no directory; links are not followed",
            ),
            FileError::NoSpace => Self::new(
                ErrorCode::DiskExceeded,
                "the file does not fit within limits.diskBytes; nothing of it was kept",
            ),
            FileError::TooLarge { size } => {
                let detail = format!("the file claims {size} bytes, more than limits.diskBytes: it is mostly holes");
                Self::new(ErrorCode::DiskExceeded, detail)
            }
            FileError::Forbidden => {
                Self::new(ErrorCode::WrongState, "the workload has taken the permission for it away from itself")
            }
            FileError::TooMany => {
                Self::new(ErrorCode::WrongState, "the directory is not empty, or has more entries than are listed")
            }
            FileError::Interfered => Self::new(ErrorCode::WrongState, "the workload changed the file meanwhile"),
            FileError::OtherSize => {
                Self::invalid(vec![FieldError::new("(body)", "is not as long as Content-Length says")])
            }
            FileError::OtherDigest { found } => {
                let detail = format!("the content's SHA-256 is {found}; nothing of it was kept");
                Self::new(ErrorCode::DigestMismatch, detail)
            }
            FileError::BrokenOff => {
                Self::invalid(vec![FieldError::new("(body)", "could not be read to its end; nothing of it was kept")])
            }
            FileError::Slow => Self::new(ErrorCode::Timeout, "the body came too slowly; nothing of it was kept"),
            FileError::Busy { retry_after } => {
                Self::new(ErrorCode::Busy, "too many files are on their way; try again").with_retry_after(retry_after)
            }
            FileError::Late => Self::new(ErrorCode::Unavailable, "the sandbox did not answer in time"),
            FileError::Failed => Self::new(ErrorCode::Unavailable, "the sandbox could not do it"),
            FileError::Store(cause) => Self::store(cause),
        }
    }
}

impl From<ArtifactError> for Failure {
    fn from(error: ArtifactError) -> Self {
        match error {
            ArtifactError::NoSession => Self::not_found(),
            ArtifactError::Absent => {
                Self::new(ErrorCode::NotFound, "the session left no such artifact, or it is no longer kept")
            }
            ArtifactError::Content(cause) => Self::internal().caused_by(cause),
            ArtifactError::Store(cause) => Self::store(cause),
        }
    }
}
