//! One request and its answer, repeated where that is safe.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
    multipart::{Form, Part},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;
use url::Url;

use crate::{Client, ClientError, LocalFile, Retry, retry};

/// The largest answer that is read. The largest honest one is a page of 100 sessions, each with 64 KiB of arguments and
/// 64 KiB of environment that consist of control characters (six bytes each in JSON), 32 labels of 63 and 2 * 256 bytes,
/// and less than 8 KiB of everything else: 100 * (768 + 19 + 8) KiB = 77.6 MiB.
const MAX_ANSWER_BYTES: usize = 96 * 1024 * 1024;
/// How much of an answer that is not the API's is shown.
const EXCERPT_CHARS: usize = 200;
/// How long an answer may take that does not wait for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long the next piece of a content may take.
const PIECE_PATIENCE: Duration = Duration::from_mins(1);

/// A request as data, so that it can be sent again.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) body: Option<Bytes>,
    /// Files that go beside the body, which makes it a part of a form.
    pub(crate) files: Vec<LocalFile>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) retry: Retry,
}

/// An answer that was read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Client {
    /// A request to the path made of these segments below the base URL.
    pub(crate) fn call(&self, method: Method, segments: &[&str]) -> Call {
        Call {
            method,
            url: self.url(segments),
            body: None,
            files: Vec::new(),
            idempotency_key: None,
            timeout: PATIENCE,
            retry: self.retry,
        }
    }

    pub(crate) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("http URLs have a path").pop_if_empty().extend(segments);
        url
    }

    /// The URL of a path below these segments. One that no URL can have would silently be another.
    pub(crate) fn below(&self, segments: &[&str], path: &str) -> Result<Url, ClientError> {
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(ClientError::Path(path.to_owned()));
        }
        let segments: Vec<_> = segments.iter().copied().chain(path.split('/')).collect();
        Ok(self.url(&segments))
    }

    /// Sends it, and reads a successful answer as `T`.
    pub(crate) async fn fetch<T: DeserializeOwned>(&self, call: &Call, what: &'static str) -> Result<T, ClientError> {
        let answer = self.answer(call).await?;
        if answer.status.is_success() { answer.read(what) } else { Err(answer.refusal()) }
    }

    /// Sends it until there is an answer that another try would not better.
    pub(crate) async fn answer(&self, call: &Call) -> Result<Answer, ClientError> {
        for attempt in 1.. {
            let outcome = self.once(call).await;
            let asked = match &outcome {
                Ok(answer) if retry::may_pass(answer.status) => retry::retry_after(&answer.headers),
                Err(error) if retry::is_connection(error) => None,
                Ok(_) | Err(_) => return outcome,
            };
            match call.retry.pause(attempt, asked) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return outcome,
            }
        }
        unreachable!("the pauses end before the numbers do")
    }

    async fn once(&self, call: &Call) -> Result<Answer, ClientError> {
        let response = call.request(self)?.send().await.map_err(transport)?;
        Answer::of(response).await
    }
}

impl Call {
    /// The same with a body.
    pub(crate) fn with_body(mut self, body: &impl Serialize) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Decode { what: "the request", source: Some(source) };
        self.body = Some(serde_json::to_vec(body).map_err(failed)?.into());
        Ok(self)
    }

    fn request(&self, client: &Client) -> Result<RequestBuilder, ClientError> {
        let mut request = client.http.request(self.method.clone(), self.url.clone()).timeout(self.timeout);
        if !self.files.is_empty() {
            request = request.multipart(self.form()?);
        } else if let Some(body) = &self.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        if let Some(key) = &self.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        Ok(request)
    }

    fn form(&self) -> Result<Form, ClientError> {
        let body = Part::stream(self.body.clone().unwrap_or_default());
        let mut form = Form::new().part("request", body.mime_str("application/json").map_err(transport)?);
        for file in &self.files {
            let unreadable = |source| ClientError::File { path: file.local.clone(), source };
            let content = std::fs::File::open(&file.local).map_err(unreadable)?;
            let bytes = content.metadata().map_err(unreadable)?.len();
            let content = reqwest::Body::from(tokio::fs::File::from_std(content));
            let part = Part::stream_with_length(content, bytes).file_name(file.path.clone());
            form = form.part(if file.executable { "executable" } else { "file" }, part);
        }
        Ok(form)
    }
}

/// A content of any size, piece by piece; or why there is none.
pub(crate) async fn pieces(
    response: Response,
) -> Result<impl Stream<Item = Result<Bytes, ClientError>> + Send + use<>, ClientError> {
    if !response.status().is_success() {
        return Err(Answer::of(response).await?.refusal());
    }
    Ok(stream::try_unfold(response, |mut response| async move {
        let piece = timeout(PIECE_PATIENCE, response.chunk()).await;
        let piece = piece.map_err(|_| ClientError::StreamLost { tries: 1, source: None })?.map_err(transport)?;
        Ok(piece.map(|piece| (piece, response)))
    }))
}

impl Answer {
    /// Reads the rest of a response, within bounds.
    pub(crate) async fn of(mut response: Response) -> Result<Self, ClientError> {
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(ClientError::TooLarge { what: "the answer", limit: MAX_ANSWER_BYTES });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Self { status, headers, body: body.freeze() })
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, what: &'static str) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|source| ClientError::Decode { what, source: Some(source) })
    }

    /// The answer as an error.
    pub(crate) fn refusal(&self) -> ClientError {
        if let Ok(problem) = serde_json::from_slice(&self.body) {
            return ClientError::Problem(Box::new(problem));
        }
        let text = String::from_utf8_lossy(&self.body);
        let excerpt = text.chars().take(EXCERPT_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
        ClientError::Unexpected { status: self.status.as_u16(), excerpt }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        retry::retry_after(&self.headers)
    }
}

/// The URL is left out of the message: callers know it, and logs need not.
pub(crate) fn transport(error: reqwest::Error) -> ClientError {
    ClientError::Transport(error.without_url())
}
