//! DNS messages: one question in, one answer out, short enough for UDP in any case.

use std::net::Ipv4Addr;

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, RData, Record, RecordType,
        rdata::{A, opt::EdnsOption},
    },
};
use model::egress::{Host, Refused};

/// What every resolver takes over UDP. A name of 255 bytes in a question, eight addresses that refer to it, and a text
/// of 160 bytes stay below it.
pub(crate) const MAX_ANSWER_BYTES: usize = 512;
/// Addresses of an answer.
pub(crate) const MAX_ADDRESSES: usize = 8;
/// Longest text of an extended error.
const MAX_TEXT_BYTES: usize = 160;
/// Seconds that an answer may be kept for: short, as each connection is decided by a fresh one.
const TTL: u32 = 30;
/// The option of extended errors, and the error "Blocked" (RFC 8914).
const EXTENDED_ERROR: u16 = 15;
const BLOCKED: u16 = 15;
/// Length of a message's header.
const HEADER: usize = 12;
/// The bit of its third byte that answers have.
const IS_ANSWER: u8 = 0x80;

/// What a message comes to.
pub(crate) enum Asked {
    /// Nothing that could be answered.
    Nothing,
    /// A fault, already answered.
    Answered(Vec<u8>),
    /// A question.
    Question(Box<Question>),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// IPv4 addresses.
    A,
    /// Anything else.
    Other,
}

/// One question.
pub(crate) struct Question {
    metadata: Metadata,
    query: Query,
    /// Whether the client understands extensions.
    extended: bool,
    pub(crate) kind: Kind,
    /// None when it is no host name.
    pub(crate) host: Option<Host>,
}

/// Reads a message.
pub(crate) fn read(bytes: &[u8]) -> Asked {
    let Some([id_high, id_low, flags, ..]) = bytes.get(..HEADER) else { return Asked::Nothing };
    // Answers are answered by nobody: two of those would never stop.
    if flags & IS_ANSWER != 0 {
        return Asked::Nothing;
    }
    let id = u16::from_be_bytes([*id_high, *id_low]);
    let fault = |op_code, response_code| {
        Message::error_msg(id, op_code, response_code).to_vec().map_or(Asked::Nothing, Asked::Answered)
    };
    let Ok(message) = Message::from_vec(bytes) else { return fault(OpCode::Query, ResponseCode::FormErr) };
    let op_code = message.metadata.op_code;
    if op_code != OpCode::Query {
        return fault(op_code, ResponseCode::NotImp);
    }
    let [query] = message.queries.as_slice() else { return fault(op_code, ResponseCode::FormErr) };
    if query.query_class() != DNSClass::IN {
        return fault(op_code, ResponseCode::Refused);
    }
    Asked::Question(Box::new(Question {
        metadata: message.metadata,
        query: query.clone(),
        extended: message.edns.is_some(),
        kind: if query.query_type() == RecordType::A { Kind::A } else { Kind::Other },
        host: query.name().to_ascii().parse().ok(),
    }))
}

/// Whether bytes are a message.
pub(crate) fn is_message(bytes: &[u8]) -> bool {
    Message::from_vec(bytes).is_ok()
}

impl Question {
    /// What was asked for, for people.
    pub(crate) fn shown(&self) -> String {
        self.host.as_ref().map_or_else(|| self.query.name().to_ascii(), Host::to_string)
    }

    /// An answer; none when it has no encoding.
    pub(crate) fn answer(
        &self,
        response_code: ResponseCode,
        addresses: &[Ipv4Addr],
        refused: Option<&Refused>,
    ) -> Option<Vec<u8>> {
        let mut metadata = Metadata::response_from_request(&self.metadata);
        metadata.message_type = MessageType::Response;
        metadata.recursion_available = true;
        metadata.response_code = response_code;
        let mut answer = Message::response(metadata.id, metadata.op_code);
        answer.metadata = metadata;
        answer.add_query(self.query.clone());
        for address in addresses.iter().take(MAX_ADDRESSES) {
            answer.add_answer(Record::from_rdata(self.query.name().clone(), TTL, RData::A(A(*address))));
        }
        if self.extended {
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            if let Some(refused) = refused {
                edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, extended_error(refused)));
            }
            answer.set_edns(edns);
        }
        answer.to_vec().ok()
    }
}

/// The code, and what would allow it.
fn extended_error(refused: &Refused) -> Vec<u8> {
    let allow = refused.allowed_by.as_ref().map(|rule| format!("; allow {rule}")).unwrap_or_default();
    let text = format!("{}{allow}", refused.detail);
    let mut error = BLOCKED.to_be_bytes().to_vec();
    error.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(MAX_TEXT_BYTES)]);
    error
}

#[cfg(test)]
mod tests;
