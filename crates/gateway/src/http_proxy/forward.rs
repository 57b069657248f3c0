//! A request and its answer, from one connection to another: neither takes along what belongs to the connection.

use std::{io, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header, uri::PathAndQuery,
};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::{activity::Activity, answer::Body, hop, metered::Metered, session::Session};

/// Headers that belong to a connection (RFC 9110, 7.6.1), or to the proxy.
const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    // The server has answered it.
    header::EXPECT,
];

/// Sends a request that was decided over a connection that was made for it alone.
pub(crate) async fn forward(
    session: &Arc<Session>,
    upstream: TcpStream,
    request: Request<Incoming>,
    host: &str,
    attempted: &str,
) -> io::Result<Response<Body>> {
    let patience = Duration::from_millis(session.outside.limits.idle_ms);
    let (mut sender, connection) =
        http1::Builder::new().handshake::<_, Body>(TokioIo::new(upstream)).await.map_err(io::Error::other)?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the outside broke");
        }
    }));
    let activity = Arc::new(Activity::new());
    let request = outward(session, request, host, attempted, activity.clone())?;
    let mut answer = tokio::select! {
        answer = sender.send_request(request) => answer.map_err(io::Error::other)?,
        // Nothing of the request has gone through for long, and no answer has come.
        () = activity.idle_for(patience) => return Err(io::ErrorKind::TimedOut.into()),
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(io::Error::other("the server switched to a protocol that nobody asked for"));
    }
    strip(answer.headers_mut());
    *answer.version_mut() = Version::HTTP_11;
    Ok(answer.map(|body| Metered::new(body, session.clone(), attempted.to_owned(), activity, Some(connection)).boxed()))
}

/// The request as the server is to see it.
fn outward(
    session: &Arc<Session>,
    request: Request<Incoming>,
    host: &str,
    attempted: &str,
    activity: Arc<Activity>,
) -> io::Result<Request<Body>> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    parts.uri = Uri::from(path);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    strip(&mut parts.headers);
    parts.headers.insert(header::HOST, HeaderValue::from_str(host).map_err(io::Error::other)?);
    Ok(Request::from_parts(parts, Metered::new(body, session.clone(), attempted.to_owned(), activity, None).boxed()))
}

/// Removes what belongs to the connection, and what its Connection header says does.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let mut named = hop::named(headers);
    // Whoever names these would change how the message is framed, or who it is for.
    named.retain(|name| *name != header::CONTENT_LENGTH && *name != header::HOST);
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_connection_stays_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-One"),
            ("connection", "x-two, content-length, \u{7f}"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic secret"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("content-length", "4"),
            ("authorization", "Bearer own"),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.append(name.parse::<HeaderName>().unwrap(), value);
            }
        }
        headers.append("connection", HeaderValue::from_static("x-two"));
        strip(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "content-length", "x-three"]);
    }
}
