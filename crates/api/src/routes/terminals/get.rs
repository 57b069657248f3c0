//! `GET /v1/sessions/{id}/terminals/{terminal}`

use axum::{
    Extension, Json,
    extract::{
        FromRequestParts, State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header, request::Parts};
use wire::{FieldError, Scope, SessionId, Terminal, TerminalId};

use super::At;
use crate::{
    access::Operation,
    attach::{Conversation, MAX_MESSAGE_BYTES},
    failure::Failure,
    gate::Standing,
    query::Query,
    serve::{Carried, Closing},
    state::App,
};

/// A terminal, or a socket to it
///
/// As a WebSocket (`Upgrade: websocket`, HTTP/1.1), which takes the scope `sessions:write`: binary messages are the
/// terminal's bytes, in both directions; text messages are JSON, a `TerminalControl` from the client and a `TerminalEvent`
/// from the server. The first message is `attached`, with the offset of the first byte that follows; with `exited` the
/// program has ended. A message has at most 64 KiB. Several clients may be attached: all see the same, all may type. A
/// client that comes back gives the number of bytes that it has had as `from`.
///
/// Without the upgrade: the terminal as it is now.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/terminals/{terminal}", operation_id = "getTerminal", tag = "terminals",
    params(
        ("id" = SessionId, Path, description = "The session's id."),
        ("terminal" = TerminalId, Path, description = "The terminal's id."),
        ("from" = Option<u64>, Query, minimum = 0,
            description = "Of a socket: the offset of the first byte of output to be sent; the oldest that is held if absent."),
        ("Upgrade" = Option<String>, Header, description = "`websocket`, for a socket.", example = "websocket"),
    ),
    responses(
        (status = 101, description = "The connection is a WebSocket from here on."),
        (status = 200, description = "The terminal.", body = Terminal),
    ),
)]
pub(crate) async fn get_terminal(
    State(app): State<App>,
    standing: Standing,
    At { session, terminal }: At,
    mut query: Query,
    Connection { wants_socket, upgrade, closing, carried }: Connection,
) -> Result<Response, Failure> {
    if !wants_socket {
        query.finish()?;
        let found = app.engine().terminal(&standing.caller, session, terminal).await;
        return Ok(Json::<Terminal>(found.map_err(Failure::of_terminal)?).into_response());
    }
    let standing = standing.raised(Scope::SessionsWrite, Operation::GetTerminal).await?;
    let from = query.number("from", 0..=u64::MAX);
    let mut faults = query.faults();
    let upgrade = upgrade.map_err(|rejection| faults.push(refusal(&rejection))).ok();
    let Some(upgrade) = upgrade.filter(|_| faults.is_empty()) else { return Err(Failure::invalid(faults)) };
    let attachment = app.engine().attach_terminal(&standing.caller, session, terminal, from).await;
    let attachment = attachment.map_err(Failure::of_terminal)?;
    let conversation = Conversation {
        attachment,
        standing,
        heartbeat: app.settings().heartbeat,
        closing: Closing::of(closing.map(Extension)),
        carried,
    };
    let upgrade = upgrade.max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(|socket| conversation.hold(socket)))
}

/// The request's connection, as far as it may become a socket.
pub(crate) struct Connection {
    wants_socket: bool,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    closing: Option<Closing>,
    carried: Option<Carried>,
}

impl FromRequestParts<App> for Connection {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        Ok(Self {
            wants_socket: wants_socket(&parts.headers),
            upgrade: WebSocketUpgrade::from_request_parts(parts, app).await,
            closing: parts.extensions.get().cloned(),
            carried: parts.extensions.get().cloned(),
        })
    }
}

/// Whether the connection is to become a WebSocket.
fn wants_socket(headers: &HeaderMap) -> bool {
    let protocols = headers.get_all(header::UPGRADE).iter().filter_map(|value| value.to_str().ok());
    let mut protocols = protocols.flat_map(|value| value.split(','));
    protocols.any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
}

/// What is wrong with the upgrade.
fn refusal(rejection: &WebSocketUpgradeRejection) -> FieldError {
    use WebSocketUpgradeRejection as Rejection;
    match rejection {
        Rejection::InvalidConnectionHeader(_) => FieldError::new("Connection", "must be Upgrade"),
        Rejection::InvalidWebSocketVersionHeader(_) => FieldError::new("Sec-WebSocket-Version", "must be 13"),
        Rejection::WebSocketKeyHeaderMissing(_) => FieldError::new("Sec-WebSocket-Key", "is required"),
        Rejection::MethodNotGet(_)
        | Rejection::MethodNotConnect(_)
        | Rejection::InvalidUpgradeHeader(_)
        | Rejection::InvalidProtocolPseudoheader(_)
        | Rejection::ConnectionNotUpgradable(_)
        | _ => FieldError::new("Upgrade", "this connection cannot become a WebSocket: it takes HTTP/1.1"),
    }
}
