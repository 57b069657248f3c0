//! A resolver that says whatever a test wants.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use hickory_proto::{
    op::{Message, Metadata},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

/// What it says for a name, and for how long that holds.
#[derive(Clone)]
pub(crate) enum Says {
    Addresses(Vec<IpAddr>),
    /// One after the other, the last for ever, none of them to be remembered.
    InTurn(Vec<IpAddr>),
    Alias(&'static str),
}

pub(crate) struct Resolver {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Resolver {
    /// The names that it was asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Every name is loopback.
    pub(crate) async fn loopback(names: &[&'static str]) -> Self {
        Self::start(names.iter().map(|name| (*name, addresses(&["127.0.0.1"]))).collect()).await
    }

    pub(crate) async fn start(zone: Vec<(&'static str, Says)>) -> Self {
        let (udp, tcp) = sockets().await;
        let address = udp.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let zone: HashMap<&'static str, Says> = zone.into_iter().collect();
        let server = Arc::new(Server { zone, asked: asked.clone(), turns: Mutex::default() });
        let on_tcp = server.clone();
        tokio::spawn(async move {
            let mut message = [0; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut message).await {
                let mut answer = server.answer(&message[..length]);
                if answer.len() > 1232 {
                    let mut short = Message::from_vec(&answer).unwrap();
                    short.answers.clear();
                    short.metadata.truncation = true;
                    answer = short.to_vec().unwrap();
                }
                let _ = udp.send_to(&answer, peer).await;
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let server = on_tcp.clone();
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut message = vec![0; length.into()];
                        if stream.read_exact(&mut message).await.is_err() {
                            return;
                        }
                        let answer = server.answer(&message);
                        let _ = stream.write_u16(answer.len().try_into().unwrap()).await;
                        let _ = stream.write_all(&answer).await;
                    }
                });
            }
        });
        Self { address, asked }
    }
}

/// Both, on one port.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // Somebody else may have the other one.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

pub(crate) fn addresses(texts: &[&str]) -> Says {
    Says::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
}

struct Server {
    zone: HashMap<&'static str, Says>,
    asked: Arc<Mutex<Vec<String>>>,
    turns: Mutex<HashMap<String, usize>>,
}

impl Server {
    fn answer(&self, message: &[u8]) -> Vec<u8> {
        let asked = Message::from_vec(message).unwrap();
        let query = asked.queries[0].clone();
        let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
        answer.metadata = Metadata::response_from_request(&asked.metadata);
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        let name = query.name().to_ascii().to_ascii_lowercase();
        let name = name.trim_end_matches('.');
        self.asked.lock().unwrap().push(name.to_owned());
        self.add(&mut answer, query.name().clone(), name, query.query_type());
        answer.to_vec().unwrap()
    }

    fn add(&self, answer: &mut Message, owner: Name, name: &str, kind: RecordType) {
        match self.zone.get(name) {
            None => answer.metadata.response_code = hickory_proto::op::ResponseCode::NXDomain,
            Some(Says::Addresses(addresses)) => {
                for address in addresses {
                    answer.answers.extend(record(&owner, *address, kind, 60));
                }
            }
            Some(Says::InTurn(addresses)) if kind == RecordType::A => {
                let mut turns = self.turns.lock().unwrap();
                let turn = turns.entry(name.to_owned()).or_default();
                let address = addresses[(*turn).min(addresses.len() - 1)];
                *turn += 1;
                answer.answers.extend(record(&owner, address, kind, 0));
            }
            Some(Says::InTurn(_)) => {}
            Some(Says::Alias(other)) => {
                let target = Name::from_ascii(format!("{other}.")).unwrap();
                answer.add_answer(Record::from_rdata(owner, 60, RData::CNAME(CNAME(target.clone()))));
                // As a resolver that has noticed that it goes in circles.
                if answer.answers.len() < 8 {
                    self.add(answer, target, other, kind);
                }
            }
        }
    }
}

fn record(owner: &Name, address: IpAddr, kind: RecordType, ttl: u32) -> Option<Record> {
    let data = match (address, kind) {
        (IpAddr::V4(v4), RecordType::A) => RData::A(A(v4)),
        (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(AAAA(v6)),
        _ => return None,
    };
    Some(Record::from_rdata(owner.clone(), ttl, data))
}
