//! A request for a session as `multipart/form-data`: `request` is what the JSON body would be, and each `file` and
//! `executable` behind it is put into the working directory under its file name.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use engine::{FileError, Uploads};
use futures::{Stream, TryStreamExt};
use http::{HeaderMap, header};
use multer::{Field, Multipart};
use utoipa::ToSchema;
use wire::{CreateSession, ErrorCode, FieldError};

use crate::{body::Json, content::incoming, failure::Failure, state::App};

/// Parts that are files. With more the request is refused anyway.
const MAX_FILES: usize = 256;
/// Bytes that may have come and were not read as content of a part: what is ahead, and the headers of all parts.
const MAX_UNCLAIMED: u64 = 1024 * 1024;
/// How often the parser may ask for more in spite of that before it is clear that it makes nothing of what it has.
const MAX_ASKED: u32 = 16;

/// A request with files beside it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "its shape is the documentation's; the parts are read one by one")]
pub(crate) struct CreateSessionForm {
    /// What to run, and under which policy. The first part.
    request: CreateSession,
    /// A file, any number of times; its file name is its path below `/workspace`. Together they have at most
    /// `limits.diskBytes`.
    #[schema(value_type = Vec<String>, format = Binary, required = false)]
    file: Vec<Vec<u8>>,
    /// The same for what may be executed: with the permission bits 0o755 instead of 0o644.
    #[schema(value_type = Vec<String>, format = Binary, required = false)]
    executable: Vec<Vec<u8>>,
}

/// What came.
pub(crate) struct Form {
    pub(crate) request: Json,
    pub(crate) uploads: Uploads,
}

/// The boundary, if the body says that it is such a form.
pub(crate) fn boundary(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    multer::parse_boundary(value).ok()
}

/// Reads a form to its end.
pub(crate) async fn read(app: &App, headers: &HeaderMap, body: Body, boundary: String) -> Result<Form, Failure> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        let detail = "the body is taken as it is, without a content encoding";
        return Err(Failure::new(ErrorCode::UnsupportedMediaType, detail));
    }
    let unclaimed = Arc::new(AtomicU64::new(0));
    let body = Bounded {
        body: Box::pin(incoming(body, app.settings().stall_timeout)),
        unclaimed: Arc::clone(&unclaimed),
        asked_too_much: 0,
    };
    let mut parts = Multipart::new(body, boundary);
    let first = parts.next_field().await.map_err(broken)?;
    let first =
        first.filter(|part| part.name() == Some("request")).ok_or_else(|| misplaced("must be the first part"))?;
    let request = json(app, first, &unclaimed).await?;
    let mut uploads = app.engine().uploads(most_bytes(app, &request.bytes));
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        let executable = match part.name() {
            Some("file") => false,
            Some("executable") => true,
            Some("request") => return Err(misplaced("may be given only once")),
            other => {
                let name = other.unwrap_or("(no name)").chars().take(64).collect::<String>();
                return Err(Failure::invalid(vec![FieldError::new(name, "is no part of this form")]));
            }
        };
        let at = uploads.len();
        if at >= MAX_FILES {
            let message = format!("may be given at most {MAX_FILES} times");
            return Err(Failure::invalid(vec![FieldError::new("file", message)]));
        }
        let Some(path) = part.file_name().map(ToOwned::to_owned) else {
            let fault = FieldError::new(format!("file[{at}]"), "must have a file name, which is its path");
            return Err(Failure::invalid(vec![fault]));
        };
        uploads.take(path, executable, content(part, &unclaimed)).await?;
    }
    Ok(Form { request, uploads })
}

/// The most that the files of this request can have. What cannot be read of it is refused later, with everything else.
fn most_bytes(app: &App, request: &[u8]) -> u64 {
    let asked = CreateSession::parse(request).ok().and_then(|(request, _)| request.limits.disk_bytes);
    app.engine().disk_bytes(asked)
}

async fn json(app: &App, part: Field<'_>, unclaimed: &Arc<AtomicU64>) -> Result<Json, Failure> {
    let limit = app.settings().body_limit;
    let mut json = Json::default();
    let content = content(part, unclaimed);
    futures::pin_mut!(content);
    while let Some(piece) = content.try_next().await? {
        json.push(app.bodies(), &piece, limit)?;
    }
    Ok(json)
}

fn content(part: Field<'_>, unclaimed: &Arc<AtomicU64>) -> impl Stream<Item = Result<Bytes, FormError>> {
    let unclaimed = Arc::clone(unclaimed);
    part.map_err(FormError).inspect_ok(move |piece| {
        // Of what was counted on its way in.
        let _ = unclaimed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| Some(bytes.saturating_sub(piece.len() as u64)));
    })
}

/// The body, as fast as what comes is claimed: the parser of forms takes whatever there is.
struct Bounded<S> {
    body: Pin<Box<S>>,
    unclaimed: Arc<AtomicU64>,
    /// How often in a row more was asked for than may be there.
    asked_too_much: u32,
}

impl<S: Stream<Item = Result<Bytes, FileError>>> Stream for Bounded<S> {
    type Item = Result<Bytes, FileError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.unclaimed.load(Ordering::Relaxed) > MAX_UNCLAIMED {
            self.asked_too_much += 1;
            if self.asked_too_much > MAX_ASKED {
                let fault = FieldError::new("(body)", "has a part whose headers are too long");
                return Poll::Ready(Some(Err(FileError::Invalid(vec![fault]))));
            }
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.asked_too_much = 0;
        let piece = ready!(self.body.as_mut().poll_next(context));
        if let Some(Ok(piece)) = &piece {
            self.unclaimed.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(piece)
    }
}

fn misplaced(message: &str) -> Failure {
    Failure::invalid(vec![FieldError::new("request", message)])
}

/// Why a form could not be read.
#[derive(Debug)]
struct FormError(multer::Error);

impl From<FormError> for FileError {
    fn from(FormError(error): FormError) -> Self {
        let message = format!("cannot be read as multipart/form-data: {error}");
        let own = if let multer::Error::StreamReadFailed(source) = error { source.downcast().ok() } else { None };
        own.map_or_else(|| Self::Invalid(vec![FieldError::new("(body)", message)]), |own| *own)
    }
}

impl From<FormError> for Failure {
    fn from(error: FormError) -> Self {
        FileError::from(error).into()
    }
}

fn broken(error: multer::Error) -> Failure {
    FormError(error).into()
}
