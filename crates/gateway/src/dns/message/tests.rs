use std::str::FromStr as _;

use hickory_proto::rr::Name;
use model::egress::Reason;
use proptest::prelude::*;

use super::*;

fn ask(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.set_edns(Edns::new());
    message
}

fn question(message: &Message) -> Box<Question> {
    match read(&message.to_vec().unwrap()) {
        Asked::Question(question) => question,
        Asked::Nothing | Asked::Answered(_) => panic!("no question"),
    }
}

fn fault(bytes: &[u8]) -> Option<ResponseCode> {
    match read(bytes) {
        Asked::Nothing => None,
        Asked::Answered(answer) => Some(Message::from_vec(&answer).unwrap().metadata.response_code),
        Asked::Question(_) => panic!("a question"),
    }
}

#[test]
fn a_question_is_answered_under_its_own_id_and_spelling() {
    let asked = ask("ExAmPle.Test.", RecordType::A);
    let question = question(&asked);
    assert_eq!(question.host, Some(Host::Name("example.test".into())));
    let answer = question.answer(ResponseCode::NoError, &[Ipv4Addr::new(192, 0, 2, 1)], None).unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.id, asked.metadata.id);
    assert!(answer.metadata.recursion_available);
    assert_eq!(answer.queries, asked.queries);
    assert_eq!(answer.answers[0].data, RData::A(A::new(192, 0, 2, 1)));
    assert_eq!(answer.answers[0].name, Name::from_str("ExAmPle.Test.").unwrap());
}

#[test]
fn the_longest_answers_are_short_enough_for_udp() {
    let label = "a".repeat(61);
    let asked = ask(&format!("{label}.{label}.{label}.{label}."), RecordType::A);
    let question = question(&asked);
    let refused = Refused { reason: Reason::NotAllowed, detail: "é".repeat(500), allowed_by: Some("x".repeat(500)) };
    let addresses = [Ipv4Addr::LOCALHOST; 50];
    let told = question.answer(ResponseCode::NoError, &addresses, None).unwrap();
    let blocked = question.answer(ResponseCode::Refused, &[], Some(&refused)).unwrap();
    for answer in [&told, &blocked] {
        assert!(answer.len() <= MAX_ANSWER_BYTES, "{}", answer.len());
    }
    assert_eq!(Message::from_vec(&told).unwrap().answers.len(), MAX_ADDRESSES);
}

#[test]
fn what_is_no_question_is_a_fault_or_nothing() {
    assert_eq!(fault(&[]), None);
    assert_eq!(fault(&[0; 11]), None);
    assert_eq!(fault(&[0xff; 40]), None);
    assert_eq!(fault(&[0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0]), Some(ResponseCode::FormErr));
    assert_eq!(fault(&Message::query().to_vec().unwrap()), Some(ResponseCode::FormErr));
    let mut two = ask("a.test.", RecordType::A);
    two.add_query(Query::query(Name::from_ascii("b.test.").unwrap(), RecordType::A));
    assert_eq!(fault(&two.to_vec().unwrap()), Some(ResponseCode::FormErr));
    let mut update = ask("a.test.", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(fault(&update.to_vec().unwrap()), Some(ResponseCode::NotImp));
    let mut chaos = ask("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(fault(&chaos.to_vec().unwrap()), Some(ResponseCode::Refused));
    let mut answer = ask("a.test.", RecordType::A);
    answer.metadata.message_type = MessageType::Response;
    assert_eq!(fault(&answer.to_vec().unwrap()), None);
}

#[test]
fn names_that_are_no_hosts_are_seen() {
    for name in [".", "*.test."] {
        assert_eq!(question(&ask(name, RecordType::A)).host, None, "{name}");
    }
    let address = question(&ask("169.254.169.254.", RecordType::A)).host;
    assert_eq!(address, Some(Host::Address([169, 254, 169, 254].into())));
}

proptest! {
    #[test]
    fn arbitrary_bytes_get_a_short_message_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        crate::fuzz::dns(&bytes);
        let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(&bytes);
        crate::fuzz::dns(&query);
    }
}
