//! The sandbox's resolver: answers for names that the session's list has, and for nothing else. A name off the list
//! leaves the sandbox in no query, so DNS carries nothing out.

mod message;

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::{Buf as _, BytesMut};
use hickory_proto::op::ResponseCode;
use model::egress::{Host, Reason, Refused};
use protocol::egress::INSIDE;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    task::JoinSet,
    time::timeout,
};

use crate::{bindings::Bindings, outside::permitted, session::Session};
use message::{Asked, Kind, Question};

pub(crate) use message::{MAX_ANSWER_BYTES, is_message};

/// Longest question. One question about the longest name takes a third of this.
const MAX_QUESTION_BYTES: usize = 1024;
/// Questions of one stream that are answered at a time. What waits behind them waits in the stream.
const AT_ONCE: usize = 64;

/// What a name comes to.
enum Found {
    /// These addresses; perhaps none of the kind that was asked for.
    Addresses(Vec<std::net::Ipv4Addr>),
    /// The name is allowed, and does not exist.
    Missing(Refused),
    /// It may not be asked for.
    Refused(Refused),
}

/// Serves a stream of questions to its end. Answers go back as they are found, in any order.
pub(crate) async fn serve(session: &Arc<Session>, mut io: UnixStream) {
    let (mut from, mut to) = io.split();
    let idle = Duration::from_millis(session.outside.limits.idle_ms);
    let mut unread = BytesMut::new();
    let mut answers = JoinSet::new();
    let mut ended = false;
    loop {
        while answers.len() < AT_ONCE {
            match next(&mut unread) {
                Ok(Some(message)) => {
                    let session = session.clone();
                    answers.spawn(async move { answer(&session, &message).await });
                }
                Ok(None) => break,
                Err(TooLong) => return,
            }
        }
        let may_read = !ended && answers.len() < AT_ONCE;
        if ended && answers.is_empty() {
            return;
        }
        tokio::select! {
            Some(found) = answers.join_next(), if !answers.is_empty() => {
                let Ok(Some(answer)) = found else { continue };
                let Ok(length) = u16::try_from(answer.len()) else { continue };
                let mut framed = length.to_be_bytes().to_vec();
                framed.extend_from_slice(&answer);
                if !matches!(timeout(idle, to.write_all(&framed)).await, Ok(Ok(()))) {
                    return;
                }
            }
            read = timeout(idle, from.read_buf(&mut unread)), if may_read => match read {
                Ok(Ok(0)) => ended = true,
                Ok(Ok(_)) => {}
                // It broke, or nothing was asked for long. Answers that are still being found are not waited for.
                Ok(Err(_)) | Err(_) => return,
            },
        }
    }
}

/// A question that is longer than questions are.
struct TooLong;

/// The next whole message.
fn next(unread: &mut BytesMut) -> Result<Option<BytesMut>, TooLong> {
    let Some(prefix) = unread.first_chunk::<2>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*prefix));
    if length > MAX_QUESTION_BYTES {
        return Err(TooLong);
    }
    if unread.len() < 2 + length {
        return Ok(None);
    }
    unread.advance(2);
    Ok(Some(unread.split_to(length)))
}

async fn answer(session: &Session, message: &[u8]) -> Option<Vec<u8>> {
    let question = match message::read(message) {
        Asked::Nothing => return None,
        Asked::Answered(answer) => return Some(answer),
        Asked::Question(question) => question,
    };
    let found = find(session, &question).await;
    if let Found::Refused(refused) | Found::Missing(refused) = &found {
        session.teller.denied(&format!("resolve {}", question.shown()), refused).await;
    }
    conclude(&question, &found)
}

/// The answer to a question whose name comes to this.
fn conclude(question: &Question, found: &Found) -> Option<Vec<u8>> {
    match (found, question.kind) {
        (Found::Refused(refused), _) => question.answer(ResponseCode::Refused, &[], Some(refused)),
        (Found::Missing(refused), _) => question.answer(ResponseCode::NXDomain, &[], Some(refused)),
        (Found::Addresses(addresses), Kind::A) => question.answer(ResponseCode::NoError, addresses, None),
        // No AAAA: what the sandbox's kernel catches is IPv4, and a client would only try IPv6 in vain. The gateway
        // itself uses both. No HTTPS or SVCB: they lead clients to other names and hide the one that is meant.
        (Found::Addresses(_), Kind::Other) => question.answer(ResponseCode::NoError, &[], None),
    }
}

async fn find(session: &Session, question: &Question) -> Found {
    let name = match &question.host {
        Some(Host::Name(name)) => name,
        Some(Host::Address(_)) | None => {
            return Found::Refused(Refused::flat(Reason::NotAHost, "what was asked for is not a host name"));
        }
    };
    if let Some(inside) = known_inside(name) {
        return Found::Addresses(vec![inside]);
    }
    let policy = &session.outside.policy;
    if let Err(refused) = policy.name(name, None) {
        return Found::Refused(refused);
    }
    let resolved = match session.outside.resolve(name).await {
        Ok(resolved) => resolved,
        Err(refused) => return Found::Missing(refused),
    };
    match permitted(resolved, |address| policy.answer(*address, name)) {
        Ok(addresses) => {
            let mut told: Vec<_> = addresses
                .into_iter()
                .filter_map(|address| match address {
                    IpAddr::V4(v4) => Some(v4),
                    IpAddr::V6(_) => None,
                })
                .collect();
            told.truncate(message::MAX_ADDRESSES);
            let mut pins = session.pins();
            for address in &told {
                pins.pin(name, IpAddr::V4(*address));
            }
            Found::Addresses(told)
        }
        Err(refused) => Found::Refused(refused),
    }
}

/// Names that mean something inside the sandbox, and are asked for nowhere else.
fn known_inside(name: &str) -> Option<std::net::Ipv4Addr> {
    if Bindings::name_of(name).is_some() {
        return Some(INSIDE);
    }
    // RFC 6761: it never leaves a host.
    (name == "localhost" || name.ends_with(".localhost")).then_some(std::net::Ipv4Addr::LOCALHOST)
}

/// The answer of a session that may resolve nothing, for the fuzz target.
pub(crate) fn answered_without_resolving(bytes: &[u8]) -> Option<Vec<u8>> {
    match message::read(bytes) {
        Asked::Nothing => None,
        Asked::Answered(answer) => Some(answer),
        Asked::Question(question) => {
            let detail = format!("no entry of egress.allow names {}", question.shown());
            let refused = Refused { reason: Reason::NotAllowed, detail, allowed_by: Some(question.shown()) };
            conclude(&question, &Found::Refused(refused))
        }
    }
}
