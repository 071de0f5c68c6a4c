//! Names against a small name server.

use super::*;
use crate::upstream::tests::name_server::NameServer;
use std::future::Future;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

fn host(name: &str) -> ServerAddress {
    ServerAddress { host: name.into(), port: 80 }
}

fn service(name: &str) -> ServerAddress {
    ServerAddress { host: name.into(), port: 0 }
}

#[track_caller]
fn check(found: Result<Found, LookError>, sockets: &[&str], ttl_secs: u64) {
    let found = found.expect("found");
    let texts: Vec<_> = found.sockets.iter().map(SocketAddr::to_string).collect();
    assert_eq!(
        (texts, found.ttl),
        (sockets.iter().map(|&text| text.to_owned()).collect(), Duration::from_secs(ttl_secs))
    );
}

#[test]
fn a_host_has_addresses_of_both_families_and_the_shortest_ttl() {
    run(async {
        let dns = NameServer::start("nameserver 127.0.0.1\n").await;
        dns.set("shop.", &["A 30 10.0.0.2", "A 30 10.0.0.1", "A 30 10.0.0.2", "AAAA 12 fd00::1"]);
        check(dns.names().look(&host("shop.")).await, &["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"], 12);
        dns.set("alias.", &["CNAME 5 shop."]);
        check(dns.names().look(&host("alias.")).await, &["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"], 5);
    });
}

#[test]
fn resolv_conf_says_who_is_asked_and_for_what() {
    run(async {
        let dns = NameServer::start("search web.svc.test svc.test\nnameserver 127.0.0.1\noptions ndots:5\n").await;
        dns.set("shop.web.svc.test.", &["A 5 10.0.0.1"]);
        dns.set("db.data.svc.test.", &["A 5 10.0.0.2"]);
        let names = dns.names();
        check(names.look(&host("shop")).await, &["10.0.0.1:80"], 5);
        check(names.look(&host("db.data")).await, &["10.0.0.2:80"], 5);
        let error = names.look(&host("none")).await.expect_err("there is none");
        assert!(matches!(error, LookError::Dns(_)), "{error}");
        // A change of the file counts from the next look on.
        dns.write_resolv_conf("search data.svc.test\nnameserver 127.0.0.1\n");
        check(names.look(&host("db")).await, &["10.0.0.2:80"], 5);
        names.look(&host("shop")).await.expect_err("its domain is not searched now");
    });
}

#[test]
fn the_hosts_file_comes_first() {
    run(async {
        let dns = NameServer::start("nameserver 127.0.0.1\n").await;
        dns.set("shop.", &["A 30 10.0.0.1", "AAAA 30 fd00::1"]);
        let names = dns.names();
        dns.write_hosts("10.9.9.9 shop shop.test # by hand\n");
        check(names.look(&host("shop")).await, &["10.9.9.9:80"], HOSTS_TTL.as_secs());
        dns.write_hosts("");
        check(names.look(&host("shop")).await, &["10.0.0.1:80", "[fd00::1]:80"], 30);
    });
}

#[test]
fn a_service_has_hosts_and_ports_of_the_best_priority() {
    run(async {
        let dns = NameServer::start("nameserver 127.0.0.1\n").await;
        let name = "_http._tcp.shop.test.";
        dns.set(
            name,
            &["SRV 30 10 0 3001 a.shop.test.", "SRV 30 10 5 3002 b.shop.test.", "SRV 30 20 0 3003 c.shop.test."],
        );
        dns.set("a.shop.test.", &["A 20 10.0.0.1"]);
        dns.set("b.shop.test.", &["A 9 10.0.0.2", "AAAA 20 fd00::2"]);
        dns.set("c.shop.test.", &["A 20 10.0.0.3"]);
        let names = dns.names();
        let three = ["10.0.0.1:3001", "10.0.0.2:3002", "[fd00::2]:3002"];
        check(names.look(&service(name)).await, &three, 9);
        // With the addresses in the answer nothing more is asked.
        dns.bring_additionals();
        let asked = dns.asked();
        check(names.look(&service(name)).await, &three, 9);
        assert_eq!(dns.asked(), asked + 1);
        // A target without an address takes the others not along.
        dns.set("a.shop.test.", &[]);
        check(names.look(&service(name)).await, &three[1..], 9);
        // RFC 2782: a root as the only target says that there is no such service.
        dns.set(name, &["SRV 30 0 0 0 ."]);
        check(names.look(&service(name)).await, &[], 30);
        names.look(&service("_http._tcp.none.test.")).await.expect_err("there is none");
    });
}

#[test]
fn a_long_answer_comes_over_tcp() {
    run(async {
        let dns = NameServer::start("nameserver 127.0.0.1\n").await;
        let records: Vec<_> = (0..300).map(|at| format!("A 5 10.1.{}.{}", at / 250, at % 250)).collect();
        dns.set("many.", &records.iter().map(String::as_str).collect::<Vec<_>>());
        let found = dns.names().look(&host("many.")).await.expect("found");
        assert_eq!(found.sockets.len(), ADDRESSES_MAX);
    });
}

#[test]
fn what_is_no_answer_is_an_error() {
    run(async {
        let dns = NameServer::start("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").await;
        dns.answer_garbage();
        dns.names().look(&host("shop.")).await.expect_err("garbage");
    });
}

#[test]
fn files_that_are_broken_or_missing_leave_the_name_server_of_this_machine() {
    run(async {
        let dns = NameServer::start("nameserver nowhere\nsearch \u{fffd}\n\0\noptions ndots:99999999\n").await;
        dns.set("shop.", &["A 5 10.0.0.1"]);
        check(dns.names().look(&host("shop.")).await, &["10.0.0.1:80"], 5);
        let error = dns.names().look(&host("a..b")).await.expect_err("no name");
        assert!(matches!(error, LookError::NoName), "{error}");
    });
}
