//! A name server on loopback that says what the test wants, over UDP and TCP.

use crate::upstream::names::Names;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

/// What goes into one datagram.
const DATAGRAM_BYTES_MAX: usize = 1232;

/// Serves until the runtime ends.
pub(in crate::upstream) struct NameServer {
    zone: Rc<Zone>,
    port: u16,
    folder: TempDir,
}

#[derive(Default)]
struct Zone {
    records: RefCell<HashMap<Name, Vec<Record>>>,
    brings_additionals: Cell<bool>,
    is_garbage: Cell<bool>,
    asked: Cell<usize>,
}

impl NameServer {
    /// Starts it, with a resolv.conf of this text.
    pub(in crate::upstream) async fn start(resolv_conf: &str) -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            // The same number for both is not always free.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("bound")).await {
                break (tcp, udp);
            }
        };
        let port = tcp.local_addr().expect("bound").port();
        let server = Self { zone: Rc::default(), port, folder: TempDir::new().expect("a folder") };
        server.write_resolv_conf(resolv_conf);
        server.write_hosts("");
        tokio::task::spawn_local(serve_udp(Rc::clone(&server.zone), udp));
        tokio::task::spawn_local(serve_tcp(Rc::clone(&server.zone), tcp));
        server
    }

    /// What asks it.
    pub(in crate::upstream) fn names(&self) -> Names {
        Names::new(self.folder.path().join("resolv.conf"), self.folder.path().join("hosts"), self.port)
    }

    pub(in crate::upstream) fn write_resolv_conf(&self, text: &str) {
        std::fs::write(self.folder.path().join("resolv.conf"), text).expect("written");
    }

    pub(in crate::upstream) fn write_hosts(&self, text: &str) {
        std::fs::write(self.folder.path().join("hosts"), text).expect("written");
    }

    /// Gives a name these records in place of what it had: kind, TTL, and the rest as in a zone file.
    pub(in crate::upstream) fn set(&self, name: &str, records: &[&str]) {
        let name: Name = name.parse().expect("a name");
        let records = records.iter().map(|text| record(&name, text)).collect();
        self.zone.records.borrow_mut().insert(name, records);
    }

    /// From now on the addresses of SRV targets come with them.
    pub(in crate::upstream) fn bring_additionals(&self) {
        self.zone.brings_additionals.set(true);
    }

    /// From now on nothing that can be read is answered.
    pub(in crate::upstream) fn answer_garbage(&self) {
        self.zone.is_garbage.set(true);
    }

    /// How many questions there were.
    pub(in crate::upstream) fn asked(&self) -> usize {
        self.zone.asked.get()
    }
}

fn record(name: &Name, text: &str) -> Record {
    let words: Vec<_> = text.split(' ').collect();
    let number = |at: usize| words[at].parse().expect("a number");
    let named = |at: usize| words[at].parse().expect("a name");
    let data = match words[0] {
        "A" => RData::A(A(words[2].parse().expect("an address"))),
        "AAAA" => RData::AAAA(AAAA(words[2].parse().expect("an address"))),
        "CNAME" => RData::CNAME(CNAME(named(2))),
        "SRV" => RData::SRV(SRV::new(number(2), number(3), number(4), named(5))),
        other => panic!("no {other} records here"),
    };
    Record::from_rdata(name.clone(), words[1].parse().expect("a TTL"), data)
}

impl Zone {
    fn answer(&self, question: &[u8]) -> Vec<u8> {
        self.asked.set(self.asked.get() + 1);
        if self.is_garbage.get() {
            return question.iter().map(|byte| !byte).collect();
        }
        let question = Message::from_vec(question).expect("a question");
        let query = question.queries.first().expect("one question").clone();
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        let records = self.records.borrow();
        let mut name = query.name().clone();
        if !records.contains_key(&name) {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        while let Some(found) = records.get(&name) {
            let alias = found.iter().find(|record| record.record_type() == RecordType::CNAME);
            answer.add_answers(found.iter().filter(|record| record.record_type() == query.query_type()).cloned());
            let Some(alias) = alias else { break };
            answer.add_answer(alias.clone());
            let RData::CNAME(CNAME(target)) = &alias.data else { break };
            name = target.clone();
        }
        if self.brings_additionals.get() {
            let targets: Vec<_> = answer.answers.iter().filter_map(target).collect();
            answer.add_additionals(targets.iter().filter_map(|name| records.get(name)).flatten().cloned());
        }
        answer.add_query(query);
        answer.to_vec().expect("an answer")
    }
}

fn target(record: &Record) -> Option<Name> {
    match &record.data {
        RData::SRV(service) => Some(service.target.clone()),
        _ => None,
    }
}

async fn serve_udp(zone: Rc<Zone>, socket: UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        let mut answer = zone.answer(&buffer[..len]);
        if answer.len() > DATAGRAM_BYTES_MAX {
            answer = Message::from_vec(&answer).expect("our own").truncate().to_vec().expect("an answer");
        }
        let _ = socket.send_to(&answer, from).await;
    }
}

async fn serve_tcp(zone: Rc<Zone>, listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let zone = Rc::clone(&zone);
        tokio::task::spawn_local(async move {
            while let Ok(len) = stream.read_u16().await {
                let mut question = vec![0; len.into()];
                if stream.read_exact(&mut question).await.is_err() {
                    return;
                }
                let answer = zone.answer(&question);
                let len = u16::try_from(answer.len()).expect("it fits");
                if stream.write_all(&[&len.to_be_bytes()[..], &answer].concat()).await.is_err() {
                    return;
                }
            }
        });
    }
}
