//! Every kind of problem, with its whole text.

use super::*;
use std::path::PathBuf;
use tempfile::TempDir;

/// A folder with `tls.crt`, `tls.key`, `other.key`, `token`, `empty` and `junk`.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write_certificate(folder.path(), "tls.crt", "tls.key");
    write_certificate(folder.path(), "other.crt", "other.key");
    for (name, text) in
        [("token", "s3cret-token\n"), ("empty", "\n"), ("junk", "whsec_!\n"), ("hook", "whsec_MfKQ9r8GKYqrTwjU\r\n")]
    {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

fn write_certificate(folder: &Path, cert: &str, key: &str) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.join(cert), made.cert.pem()).expect("written");
    std::fs::write(folder.join(key), made.signing_key.serialize_pem()).expect("written");
}

fn checked(source: &str) -> Result<Config, Problems> {
    let folder = folder();
    let env = |name: &str| (name == "TOKEN").then(|| "from-env".to_owned());
    check(source, folder.path(), &env, &mut Sources::default(), Problems::new("c.yaml")).map_err(|mut problems| {
        for problem in &mut problems.found {
            problem.text = problem.text.replace(&*folder.path().to_string_lossy(), "/etc/pb");
        }
        problems
    })
}

/// Checks all problems of a whole file.
#[track_caller]
fn refused(source: &str, expected: &[&str]) {
    let problems = checked(source).expect_err("problems");
    assert_eq!(problems.lines().collect::<Vec<_>>(), expected, "{source}");
}

const LISTENERS: &str = "listeners: [{ name: http, address: '127.0.0.1:0' }]\n";
const ROUTES: &str = "routes: [{ name: all, match: {}, proxy: { upstream: chat } }]\n";
const UPSTREAMS: &str = "upstreams: { chat: { servers: ['http://127.0.0.1:3000'] } }\n";

/// Checks all problems of a section that stands from line 1 before what is required.
#[track_caller]
fn section(source: &str, expected: &[&str]) {
    let whole = format!("{}\n{LISTENERS}{UPSTREAMS}{ROUTES}", source.trim_end());
    refused(&whole, expected);
}

/// Checks all problems of one listener's keys, which begin at 1:15.
#[track_caller]
fn listener(keys: &str, expected: &[&str]) {
    refused(&format!("listeners: [{{ {keys} }}]\n{UPSTREAMS}{ROUTES}"), expected);
}

/// Checks all problems of one route's keys, which begin at 1:23.
#[track_caller]
fn route(keys: &str, expected: &[&str]) {
    refused(&format!("routes: [{{ name: one, {keys} }}]\n{LISTENERS}{UPSTREAMS}"), expected);
}

#[track_caller]
fn accepted(source: &str) -> Config {
    match checked(source) {
        Ok(config) => config,
        Err(problems) => panic!("{problems}"),
    }
}

#[test]
fn listeners_and_routes_are_all_that_is_required() {
    let config = accepted(&format!("{LISTENERS}{UPSTREAMS}{ROUTES}"));
    assert_eq!(config.publish.address, defaults::PUBLISH_ADDRESS);
    assert_eq!(config.admin, defaults::ADMIN_ADDRESS);
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    refused(
        "{}",
        &[
            "listeners: missing; list at least one with a name and an address (c.yaml:1:1)",
            "routes: missing; list at least one, with a name, match, and one of push, websocket, proxy (c.yaml:1:1)",
        ],
    );
    let keys =
        "listeners, publish, admin, upstreams, routes, channels, bus, sessions, limits, drain, telemetry, runtime";
    refused("", &[&format!("nothing stands here, where a mapping belongs; write keys: {keys} (c.yaml:1:1)")]);
    refused(
        "listeners: []\nroutes:\n",
        &[
            "listeners: empty; list at least one with a name and an address (c.yaml:1:12)",
            "routes: nothing stands here; give it a value or remove the key (c.yaml:2:1)",
        ],
    );
}

#[test]
fn broken_yaml_is_one_problem() {
    refused("listeners: [\nroutes: []", &["no valid YAML: unclosed bracket '[' (c.yaml:1:12)"]);
}

#[test]
fn many_problems_come_at_once_in_the_order_of_lines() {
    let source = "\
routes:
  - name: chat
    match: { path: chat }
    proxy: { upstream: chta }
  - name: chat
    match: { path: \"/prices/{symbol}\" }
    push: { channels: [\"prices.{symbl}\"], keep_alive: 20 }
upstreams:
  chat: { servers: [\"http://127.0.0.1:3000\"], balanse: round_robin }
listeners:
  - name: https
    address: :8443
    tls: { certificates: [{ cert_file: nowhere.crt, key_file: tls.key }] }
limits:
  connections: many
";
    refused(
        source,
        &[
            "routes[0].match.path: \"chat\" does not start with `/`; write \"/chat\" (c.yaml:3:20)",
            "routes[0].proxy.upstream: \"chta\" is not defined; did you mean \"chat\"? (c.yaml:4:24)",
            "routes[1].name: \"chat\" is taken (routes[0].name, line 2); choose another name (c.yaml:5:11)",
            "routes[1].push.channels[0]: {symbl} is no parameter of the path \"/prices/{symbol}\"; did you mean \"symbol\"? (c.yaml:7:24)",
            "routes[1].push.keep_alive: 20 has no unit; write 20s or 20ms (c.yaml:7:55)",
            "upstreams.chat.balanse: unknown key \"balanse\"; did you mean \"balance\"? (c.yaml:9:47)",
            "listeners[0].address: \":8443\" is no address; write 0.0.0.0:8443 or [::]:8443 (c.yaml:12:14)",
            "listeners[0].tls.certificates[0].cert_file: \"nowhere.crt\" can't be read: no such file; looked for it at /etc/pb/nowhere.crt (c.yaml:13:40)",
            "limits.connections: \"many\" is no whole number; write digits only (c.yaml:15:16)",
        ],
    );
}

#[test]
fn types_and_keys_are_checked() {
    section(
        "telemetry: { access_log: yes }",
        &["telemetry.access_log: \"yes\" is neither true nor false; write one of the two (c.yaml:1:26)"],
    );
    section(
        "telemetry: { log: { level: true } }",
        &["telemetry.log.level: true is no text; put it in quotes (c.yaml:1:28)"],
    );
    section(
        "telemetry: { log: { level: [] } }",
        &["telemetry.log.level: a list is no text; write a text (c.yaml:1:28)"],
    );
    section(
        "telemetry: { log: { format: jsn } }",
        &["telemetry.log.format: \"jsn\" is unknown here; did you mean \"json\"? (c.yaml:1:29)"],
    );
    section(
        "telemetry: { log: { format: logfmt } }",
        &["telemetry.log.format: \"logfmt\" is unknown here; write one of: json, text (c.yaml:1:29)"],
    );
    section(
        "limits: 5",
        &["limits: a single value stands here, where a mapping belongs; write keys: connections, connections_per_ip, \
         streams_per_connection, request_header_timeout, idle_timeout, request_header_bytes, tls_handshake_timeout, \
         subscriptions_per_session, client_messages_per_second, channels, history_bytes (c.yaml:1:9)"],
    );
    section(
        "channels: { match: a }",
        &["channels: a mapping stands here, where a list belongs; put it in [ ], or after `- ` (c.yaml:1:11)"],
    );
    section(
        "bus: { rabbit: {} }",
        &["bus.rabbit: unknown key \"rabbit\"; the keys here are memory, redis, nats, kafka (c.yaml:1:8)"],
    );
    section(
        "admin: { address: '127.0.0.1:1', address: '127.0.0.1:2' }",
        &["admin.address: key \"address\" stands here twice; keep one (c.yaml:1:34)"],
    );
    section("drian: {}", &["drian: unknown key \"drian\"; did you mean \"drain\"? (c.yaml:1:1)"]);
    section(
        "drain: { settle: 2h, spread: 60, fail_readiness: never }",
        &[
            "drain.settle: 2h is out of range; write 0s to 1h (c.yaml:1:18)",
            "drain.spread: 60 has no unit; write 60s or 60ms (c.yaml:1:30)",
            "drain.fail_readiness: \"never\" is unknown here; write one of: at_start, after_settle (c.yaml:1:50)",
        ],
    );
}

#[test]
fn listeners_are_checked() {
    listener(
        "address: '127.0.0.1:0'",
        &["listeners[0].name: missing; name the listener for logs and metrics (c.yaml:1:13)"],
    );
    listener(
        "name: 'a b', address: '127.0.0.1:0'",
        &["listeners[0].name: \"a b\" is no name; write 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.` (c.yaml:1:21)"],
    );
    listener(
        "name: a",
        &["listeners[0].address: missing; write an IP address and port, such as 0.0.0.0:8080 (c.yaml:1:13)"],
    );
    listener(
        "name: a, address: 'localhost:80'",
        &[
            "listeners[0].address: \"localhost:80\" is no address; write an IP address and port, such as 127.0.0.1:8080 or [::]:8080 (c.yaml:1:33)",
        ],
    );
    listener(
        "name: a, address: '0.0.0.0:1', protocols: [h3]",
        &["listeners[0].protocols[0]: \"h3\" is unknown here; did you mean \"h2\"? (c.yaml:1:58)"],
    );
    listener(
        "name: a, address: '0.0.0.0:1', protocols: [h2, h2]",
        &["listeners[0].protocols: has one twice; write each once (c.yaml:1:57)"],
    );
    listener(
        "name: a, address: '0.0.0.0:1', trusted_proxies: [10.0.0.0/40]",
        &[
            "listeners[0].trusted_proxies[0]: \"10.0.0.0/40\" is no network; write such as 10.0.0.0/8 or 10.1.2.3 (c.yaml:1:64)",
        ],
    );
    listener(
        "name: a, address: '0.0.0.0:1' }, { name: a, address: '0.0.0.0:2'",
        &["listeners[1].name: \"a\" is taken (listeners[0].name, line 1); choose another name (c.yaml:1:56)"],
    );
}

#[test]
fn addresses_are_taken_once() {
    listener(
        "name: a, address: '0.0.0.0:1' }, { name: b, address: '127.0.0.1:1'",
        &["listeners[1].address: port 1 is taken by listeners[0].address; choose another (c.yaml:1:68)"],
    );
    listener(
        "name: a, address: '0.0.0.0:5561'",
        &["listeners[0].address: port 5561 is taken by publish.address; choose another (c.yaml:1:33)"],
    );
    section(
        "publish: { address: '127.0.0.1:9901' }",
        &["publish.address: port 9901 is taken by admin.address; choose another (c.yaml:1:21)"],
    );
    accepted(&format!(
        "listeners: [{{ name: a, address: '0.0.0.0:0' }}, {{ name: b, address: '0.0.0.0:0' }}]\n{UPSTREAMS}{ROUTES}"
    ));
}

#[test]
fn certificates_are_looked_at() {
    let tls = |tls: &str, expected: &[&str]| listener(&format!("name: a, address: '0.0.0.0:1', tls: {tls}"), expected);
    tls("{}", &["listeners[0].tls.certificates: missing; list at least one with cert_file and key_file (c.yaml:1:51)"]);
    tls(
        "{ certificates: [{ cert_file: tls.crt }] }",
        &["listeners[0].tls.certificates[0].key_file: missing; name a PEM file (c.yaml:1:68)"],
    );
    tls(
        "{ certificates: [{ cert_file: tls.crt, key_file: other.key }] }",
        &[
            "listeners[0].tls.certificates[0].key_file: \"other.key\" is not the key of \"tls.crt\"; name the one that it was made with (c.yaml:1:100)",
        ],
    );
    tls(
        "{ certificates: [{ cert_file: token, key_file: token }] }",
        &[
            "listeners[0].tls.certificates[0].cert_file: \"token\" has no certificate; it must hold PEM with BEGIN CERTIFICATE (c.yaml:1:81)",
            "listeners[0].tls.certificates[0].key_file: \"token\" has no private key; it must hold PEM with BEGIN PRIVATE KEY (not encrypted) (c.yaml:1:98)",
        ],
    );
    let good = "certificates: [{ cert_file: tls.crt, key_file: tls.key }]";
    tls(
        &format!("{{ {good}, client_ca_file: junk, min_version: 1.1 }}"),
        &[
            "listeners[0].tls.client_ca_file: \"junk\" has no certificate; it must hold PEM with BEGIN CERTIFICATE (c.yaml:1:128)",
            "listeners[0].tls.min_version: 1.1 is unknown here; did you mean \"1.2\"? (c.yaml:1:147)",
        ],
    );
    accepted(&format!(
        "listeners: [{{ name: a, address: '0.0.0.0:1', tls: {{ {good}, min_version: 1.3, client_ca_file: other.crt }} }}]\n{UPSTREAMS}{ROUTES}"
    ));
}

#[test]
fn the_dates_of_certificates_are_warned_of() {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    let now_secs = crate::hub::clock::unix_ms() as i64 / 1000;
    let soon = time::OffsetDateTime::from_unix_timestamp(now_secs + 3 * 24 * 3600).expect("a moment");
    let (before, after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2999, 1, 1));
    let cases = [
        (before, date_time_ymd(2021, 2, 3), "expired on 2021-02-03; it is served all the same; renew it".to_owned()),
        (
            after,
            date_time_ymd(2999, 2, 1),
            "is not valid before 2999-01-01; look at its dates and the clock".to_owned(),
        ),
        (before, soon, format!("expires on {}; renew it", soon.date())),
        (before, after, String::new()),
    ];
    for (not_before, not_after, expected) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (not_before, not_after);
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("c.pem"), cert.pem() + &key.serialize_pem()).expect("written");
        let source = format!(
            "listeners: [{{ name: a, address: '0.0.0.0:1', tls: {{ certificates: [{{ cert_file: c.pem, key_file: c.pem }}] }} }}]\n{UPSTREAMS}{ROUTES}"
        );
        let path = folder.path().join("c.yaml");
        std::fs::write(&path, source).expect("written");
        let warnings = loaded(&path).warnings;
        let texts: Vec<_> = warnings.found.iter().map(|warning| warning.text.clone()).collect();
        let expected = Some(format!("\"c.pem\" {expected}")).filter(|_| !expected.is_empty());
        assert_eq!(texts, expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn publishing_to_everybody_is_refused() {
    section(
        "publish: { address: '0.0.0.0:5561' }",
        &[
            "publish.address: \"0.0.0.0:5561\" is not loopback, so anybody could publish; add publish.auth, or write 127.0.0.1 (c.yaml:1:21)",
        ],
    );
    section(
        "publish: { address: '0.0.0.0:5561', auth: [] }",
        &["publish.auth: empty; write one way at least, or remove the key (c.yaml:1:43)"],
    );
    let hook = "{ path: /h, verify: none, channel: c }";
    section(
        &format!("publish: {{ address: '[::]:1', auth: [{{ bearer: {{ token_env: TOKEN }} }}], webhooks: [{hook}] }}"),
        &[
            "publish.webhooks[0].verify: none would let anybody publish, since publish.address is [::]:1; write standard_webhooks, hmac, github or stripe (c.yaml:1:104)",
        ],
    );
}

#[test]
fn secrets_come_from_files_and_the_environment() {
    let auth =
        |auth: &str, expected: &[&str]| section(&format!("publish: {{ auth: [{{ bearer: {auth} }}] }}"), expected);
    auth(
        "s3cret",
        &[
            "publish.auth[0].bearer: a single value stands here, where a mapping belongs; write keys: token_file, token_env (c.yaml:1:29)",
        ],
    );
    auth("{}", &["publish.auth[0].bearer: has none of token_file, token_env; write one (c.yaml:1:29)"]);
    auth(
        "{ token_file: token, token_env: TOKEN }",
        &["publish.auth[0].bearer: has token_file and token_env at once; keep one (c.yaml:1:29)"],
    );
    auth(
        "{ token: s3cret }",
        &["publish.auth[0].bearer.token: unknown key \"token\"; the keys here are token_file, token_env (c.yaml:1:31)"],
    );
    auth(
        "{ token_env: TOKN }",
        &["publish.auth[0].bearer.token_env: the environment variable \"TOKN\" is not set; set it (c.yaml:1:42)"],
    );
    auth(
        "{ token_file: nowhere }",
        &[
            "publish.auth[0].bearer.token_file: \"nowhere\" can't be read: no such file; looked for it at /etc/pb/nowhere (c.yaml:1:43)",
        ],
    );
    auth(
        "{ token_file: . }",
        &[
            "publish.auth[0].bearer.token_file: \".\" can't be read: it is a directory; looked for it at /etc/pb/. (c.yaml:1:43)",
        ],
    );
    auth(
        "{ token_file: empty }",
        &["publish.auth[0].bearer.token_file: the secret is empty; write it there (c.yaml:1:43)"],
    );
    section(
        "publish: { auth: [{ jwt: {} }] }",
        &["publish.auth[0].jwt: unknown key \"jwt\"; the keys here are bearer, grip_sig (c.yaml:1:21)"],
    );
}

#[test]
fn webhooks_are_checked() {
    let hook = |hook: &str, expected: &[&str]| section(&format!("publish: {{ webhooks: [{{ {hook} }}] }}"), expected);
    hook(
        "path: /h",
        &[
            "publish.webhooks[0].verify: missing; write standard_webhooks, hmac, github or stripe (or none, on loopback) (c.yaml:1:23)",
            "publish.webhooks[0].channel: missing; write such as \"orders.{/data/id}\" (c.yaml:1:23)",
        ],
    );
    hook(
        "path: h, channel: c, verify: nothing",
        &[
            "publish.webhooks[0].path: \"h\" is no exact path; write such as /hooks/orders (c.yaml:1:31)",
            "publish.webhooks[0].verify: \"nothing\" is unknown here; only this is known: none (c.yaml:1:54)",
        ],
    );
    hook(
        "path: /v1/events, channel: c, verify: none",
        &["publish.webhooks[0].path: \"/v1/events\" is where events are published; choose another (c.yaml:1:31)"],
    );
    hook(
        "path: /h, channel: c, verify: none }, { path: /h, channel: c, verify: none",
        &["publish.webhooks[1].path: \"/h\" has a webhook already; choose another (c.yaml:1:71)"],
    );
    hook(
        "path: /h, channel: c, verify: { standard_webhooks: { secret_file: junk } }",
        &[
            "publish.webhooks[0].verify.standard_webhooks.secret_file: the secret is none of Standard Webhooks; it must be `whsec_` and base64 (c.yaml:1:91)",
        ],
    );
    hook(
        "path: /h, channel: c, verify: { hmac: { secret_file: token, header: 'x y', tolerance: 1m } }",
        &[
            "publish.webhooks[0].verify.hmac.header: \"x y\" is no field name; write such as x-signature (c.yaml:1:93)",
            "publish.webhooks[0].verify.hmac.tolerance: does nothing without timestamp_header; add that, or remove this (c.yaml:1:111)",
        ],
    );
    hook(
        "path: /h, channel: c, verify: { github: {}, stripes: {} }",
        &[
            "publish.webhooks[0].verify.github: has none of secret_file, secret_env; write one (c.yaml:1:65)",
            "publish.webhooks[0].verify.stripes: unknown key \"stripes\"; did you mean \"stripe\"? (c.yaml:1:69)",
        ],
    );
}

#[test]
fn routes_are_checked() {
    let p = "proxy: { upstream: chat }";
    route(p, &["routes[0].match: missing; write such as { path: /** } (c.yaml:1:10)"]);
    route("match: {}", &["routes[0]: has none of push, websocket, proxy; write one (c.yaml:1:10)"]);
    route(
        &format!("match: {{}}, {p}, push: {{ channels: [] }}"),
        &[
            "routes[0]: has push and proxy at once; keep one (c.yaml:1:10)",
            "routes[0].push.channels: empty; list at least one, such as \"prices.{symbol}\" (c.yaml:1:79)",
        ],
    );
    route(
        &format!("match: {{ host: 'a.b:80' }}, {p}"),
        &["routes[0].match.host: \"a.b:80\" has a port, which is never compared; leave it out (c.yaml:1:38)"],
    );
    route(
        &format!("match: {{ methods: [get, 'G T'] }}, {p}"),
        &[
            "routes[0].match.methods[0]: \"get\" is no method, since they are upper case; write GET (c.yaml:1:42)",
            "routes[0].match.methods[1]: \"G T\" is no method; write such as GET (c.yaml:1:47)",
        ],
    );
    route(
        &format!("match: {{ headers: {{ 'x y': a, x: \"\\n\" }} }}, {p}"),
        &[
            "routes[0].match.headers[\"x y\"]: \"x y\" is no field name; write such as x-signature (c.yaml:1:50)",
            "routes[0].match.headers.x: \"\\n\" is no field value; write printable characters (c.yaml:1:56)",
        ],
    );
    route("match: {}, proxy: {}", &["routes[0].proxy.upstream: missing; name one of upstreams (c.yaml:1:41)"]);
    route(
        "match: {}, websocket: { upstream: shop, protocol: cloudevent, max_message: 0 }",
        &[
            "routes[0].websocket.upstream: \"shop\" is not defined; defined are chat (c.yaml:1:57)",
            "routes[0].websocket.protocol: \"cloudevent\" is unknown here; did you mean \"cloudevents\"? (c.yaml:1:73)",
            "routes[0].websocket.max_message: 0 is out of range; write 1 to 64MiB (c.yaml:1:98)",
        ],
    );
    refused(
        &format!("{LISTENERS}routes: [{{ name: a, match: {{}}, {p} }}]"),
        &["routes[0].proxy.upstream: \"chat\" is not defined; add it to upstreams (c.yaml:2:51)"],
    );
}

#[test]
fn routes_by_cloudevents_are_checked() {
    #[track_caller]
    fn check(section: &str, expected: &[&str]) {
        route(&format!("match: {{}}, websocket: {{ upstream: chat, {section} }}"), expected);
    }
    check(
        "cloudevents: {}",
        &[
            "routes[0].websocket.cloudevents: does nothing without protocol: cloudevents; add that, or remove this (c.yaml:1:76)",
        ],
    );
    check(
        "protocol: cloudevents, pings: pass",
        &[
            "routes[0].websocket.pings: pass can't be with protocol: cloudevents, which has no event for pings; remove it (c.yaml:1:93)",
        ],
    );
    for (section, wrong) in [
        ("hub: 'a b'", "hub: \"a b\" is no hub; write 1 to 128 of a-z, A-Z, 0-9, `-`, `_` and `.` (c.yaml:1:106)"),
        (
            "path: 'x'",
            "path: \"x\" is no path for events; write such as /eventhandler or /api/{hub}/{event} (c.yaml:1:107)",
        ),
        (
            "path: '/{x}'",
            "path: \"/{x}\" is no path for events; write such as /eventhandler or /api/{hub}/{event} (c.yaml:1:107)",
        ),
        (
            "origin: 'https://a'",
            "origin: \"https://a\" is no host name; write such as push.example, without a scheme (c.yaml:1:109)",
        ),
    ] {
        check(
            &format!("protocol: cloudevents, cloudevents: {{ {section} }}"),
            &[&format!("routes[0].websocket.cloudevents.{wrong}")],
        );
    }
    check(
        "protocol: cloudevents, cloudevents: { secondary_key_env: TOKEN }",
        &[
            "routes[0].websocket.cloudevents: has a secondary key without a primary one; write that one as key_file or key_env (c.yaml:1:99)",
        ],
    );
}

#[test]
fn grip_is_checked_on_routes_and_upstreams() {
    let grip = |grip: &str, expected: &[&str]| {
        route(&format!("match: {{ path: '/r/{{id}}' }}, proxy: {{ upstream: chat, grip: {grip} }}"), expected);
    };
    for (given, expected) in [
        ("maybe", "grip: \"maybe\" is neither true nor false; write one of the two (c.yaml:1:82)"),
        (
            "{ chanel_prefix: a }",
            "grip.chanel_prefix: unknown key \"chanel_prefix\"; did you mean \"channel_prefix\"? (c.yaml:1:84)",
        ),
        (
            "{ channel_prefix: \"a\\nb\" }",
            "grip.channel_prefix: channel name \"a\\nb\" has a control character; use printable characters only (c.yaml:1:100)",
        ),
        (
            "{ channels: ['{room}'] }",
            "grip.channels[0]: {room} is no parameter of the path \"/r/{id}\"; its parameters are id (c.yaml:1:95)",
        ),
        (
            "{ key_file: x }",
            "grip.key_file: unknown key \"key_file\"; the keys here are channel_prefix, channels (c.yaml:1:84)",
        ),
    ] {
        grip(given, &[&format!("routes[0].proxy.{expected}")]);
    }
    let many: Vec<_> = (0..101).map(|n| format!("c{n}")).collect();
    grip(
        &format!("{{ channels: [{}] }}", many.join(",")),
        &[
            "routes[0].proxy.grip.channels: 101 channels are over limits.subscriptions_per_session (100); list fewer or raise it (c.yaml:1:94)",
        ],
    );
    for (given, expected) in [
        (
            "true",
            ": a single value stands here, where a mapping belongs; write keys: issuer, key_file, key_env, id_cache (c.yaml:3:61)",
        ),
        ("{ isuer: a }", ".isuer: unknown key \"isuer\"; did you mean \"issuer\"? (c.yaml:3:63)"),
        (
            "{ key_file: nowhere }",
            ".key_file: \"nowhere\" can't be read: no such file; looked for it at /etc/pb/nowhere (c.yaml:3:73)",
        ),
        ("{ key_env: NOWHERE }", ".key_env: the environment variable \"NOWHERE\" is not set; set it (c.yaml:3:72)"),
        ("{ key_file: a, key_env: b }", ": has key_file and key_env at once; keep one (c.yaml:3:61)"),
        (
            "{ id_cache: 2d }",
            ".id_cache: \"2d\" is no duration; write a whole number with ms, s, m or h, such as 30s (c.yaml:3:73)",
        ),
    ] {
        let chat = format!("upstreams: {{ chat: {{ servers: ['http://127.0.0.1:1'], grip: {given} }} }}");
        refused(&format!("{LISTENERS}{ROUTES}{chat}"), &[&format!("upstreams.chat.grip{expected}")]);
    }
    let config = accepted(
        "listeners: [{ name: http, address: '127.0.0.1:0' }]
upstreams: { chat: { servers: ['http://127.0.0.1:1'], grip: { issuer: edge, key_env: TOKEN, id_cache: 5s } } }
routes:
  - { name: r, match: { path: '/r/{id}' }, proxy: { upstream: chat, grip: { channel_prefix: p-, channels: ['r.{id}', all] } } }
  - { name: t, match: { path: /t }, proxy: { upstream: chat, grip: true } }
  - { name: f, match: { path: /f }, proxy: { upstream: chat, grip: false } }
",
    );
    assert!(config.warnings.is_empty(), "{}", config.warnings);
}

#[test]
fn push_routes_are_checked() {
    let push =
        |push: &str, expected: &[&str]| route(&format!("match: {{}}, push: {{ channels: [a], {push} }}"), expected);
    push("transports: [sse, sse]", &["routes[0].push.transports: has one twice; write each once (c.yaml:1:69)"]);
    push(
        "transports: [ws]",
        &[
            "routes[0].push.transports[0]: \"ws\" is unknown here; write one of: sse, websocket, long_poll (c.yaml:1:70)",
        ],
    );
    push(
        "auth: { jwt: {} }",
        &["routes[0].push.auth: a mapping is unknown here; only this is known: none (c.yaml:1:63)"],
    );
    push("start: { last: 0 }", &["routes[0].push.start.last: 0 is out of range; write 1 to 10000000 (c.yaml:1:72)"]);
    push("start: {}", &["routes[0].push.start.last: missing; write how many, such as 1 (c.yaml:1:64)"]);
    push("keep_alive: 2h", &["routes[0].push.keep_alive: 2h is out of range; write 1s to 1h (c.yaml:1:69)"]);
    push(
        "cors: { origins: ['*', https://A.b], credentials: true }",
        &[
            "routes[0].push.cors.origins[1]: \"https://A.b\" is no origin; write scheme and host in lower case, without a path: https://shop.example (c.yaml:1:80)",
            "routes[0].push.cors.credentials: true can't go with the origin \"*\" (WHATWG Fetch §3.3.5); list the origins (c.yaml:1:107)",
        ],
    );
    push(
        "allowed_origins: []",
        &["routes[0].push.allowed_origins: empty; list origins, or remove the key for the own origin (c.yaml:1:74)"],
    );
    push(
        "client_publish: ['a***']",
        &[
            "routes[0].push.client_publish[0]: channel pattern \"a***\" has more than two stars in a row; `*` is a run without `.`, `**` any run (c.yaml:1:74)",
        ],
    );
    route(
        "match: { path: /a }, push: { channels: ['x.{id}', 'a{'] }",
        &[
            "routes[0].push.channels[0]: {id} is no parameter of the path \"/a\"; add {id} to it (c.yaml:1:63)",
            "routes[0].push.channels[1]: \"a{\" has a brace without its partner; write `{name}` (c.yaml:1:73)",
        ],
    );
    push("channels: [a]", &["routes[0].push.channels: key \"channels\" stands here twice; keep one (c.yaml:1:57)"]);
    route(
        "match: {}, push: { channels: [a, b, a] }",
        &["routes[0].push.channels: has one twice; write each once (c.yaml:1:52)"],
    );
    let many = (0..101).map(|n| format!("a{n}")).collect::<Vec<_>>().join(", ");
    route(
        &format!("match: {{}}, push: {{ channels: [{many}] }}"),
        &[
            "routes[0].push.channels: 101 channels are over limits.subscriptions_per_session (100); list fewer or raise it (c.yaml:1:52)",
        ],
    );
}

#[test]
fn upstreams_and_channels_are_checked() {
    let rest = format!("{LISTENERS}{ROUTES}");
    refused(
        &format!(
            "upstreams: {{ chat: {{ servers: ['https://a', b], protocol: h3, retries: {{ attempts: 11 }}, timeouts: {{ connect: 0s }} }} }}\n{rest}"
        ),
        &[
            "upstreams.chat.servers[0]: \"https://a\" speaks TLS, which backends can't yet; write http:// (c.yaml:1:32)",
            "upstreams.chat.servers[1]: \"b\" is no server; write http://host:port (c.yaml:1:45)",
            "upstreams.chat.protocol: \"h3\" is unknown here; did you mean \"h2\"? (c.yaml:1:59)",
            "upstreams.chat.retries.attempts: 11 is out of range; write 0 to 10 (c.yaml:1:84)",
            "upstreams.chat.timeouts.connect: 0s is out of range; write 10ms to 1h (c.yaml:1:111)",
        ],
    );
    refused(
        &format!("upstreams: {{ chat: {{}}, chat: {{}} }}\n{rest}"),
        &[
            "upstreams.chat.servers: missing; list at least one, such as http://127.0.0.1:3000 (c.yaml:1:20)",
            "upstreams.chat: key \"chat\" stands here twice; keep one (c.yaml:1:24)",
        ],
    );
    section(
        "channels: [{ slow_consumer: drop }, { match: a, slow_consumer: { conflate_by: a/b } }]",
        &[
            "channels[0].match: missing; write a pattern, such as prices.* (c.yaml:1:12)",
            "channels[0].slow_consumer: \"drop\" is unknown here; write one of: gap, close (c.yaml:1:29)",
            "channels[1].slow_consumer.conflate_by: \"a/b\" is no key; write event, or a JSON pointer such as /symbol (c.yaml:1:79)",
        ],
    );
    section(
        "channels: [{ match: a, max_message: 2MiB, history: { messages: 0 } }]",
        &[
            "channels[0].max_message: max_message (2MiB) is over history.max_bytes (1MiB), so that a message may not fit; raise history.max_bytes or lower max_message (c.yaml:1:37)",
            "channels[0].history.messages: 0 is out of range; write 1 to 10000000 (c.yaml:1:64)",
        ],
    );
}

#[test]
fn limits_and_logs_are_checked() {
    section(
        "limits: { connections: 0, request_header_bytes: 1KB, request_header_timeout: 5, subscriptions_per_session: 1001 }",
        &[
            "limits.connections: 0 is out of range; write 1 to 100000000 (c.yaml:1:24)",
            "limits.request_header_bytes: \"1KB\" is no size; write 1KiB (c.yaml:1:49)",
            "limits.request_header_timeout: 5 has no unit; write 5s or 5ms (c.yaml:1:78)",
            "limits.subscriptions_per_session: 1001 is out of range; write 1 to 1000 (c.yaml:1:108)",
        ],
    );
    section(
        "limits: { client_messages_per_second: 0 }",
        &["limits.client_messages_per_second: 0 is out of range; write 1 to 100000 (c.yaml:1:39)"],
    );
    section(
        "telemetry: { log: { level: inof } }\nruntime: { workers: 0 }",
        &[
            "telemetry.log.level: \"inof\" is no log level; did you mean \"info\"? (c.yaml:1:28)",
            "runtime.workers: 0 is out of range; write 1 to 1024 (c.yaml:2:21)",
        ],
    );
    let config = accepted(&format!(
        "telemetry: {{ log: {{ level: 'warn,pushbridge::session=debug', format: text }} }}\nlimits: {{ connections: 1e+06 }}\n{LISTENERS}{UPSTREAMS}{ROUTES}"
    ));
    assert_eq!(
        (config.limits.connections_max, config.log.level.as_str()),
        (1_000_000, "warn,pushbridge::session=debug")
    );
}

#[test]
fn likely_mistakes_are_warned_of() {
    let source = "\
listeners: [{ name: http, address: '127.0.0.1:0' }]
upstreams:
  chat: { servers: ['http://a'] }
  shop: { servers: ['http://b'] }
routes:
  - { name: all, match: { path: /a/** }, proxy: { upstream: chat } }
  - { name: one, match: { path: '/a/{x}' }, push: { channels: [n] } }
  - { name: two, match: { path: '/{_any}/b' }, push: { channels: [n] } }
  - { name: six, match: { path: /six, methods: [GET] }, push: { channels: [n], cors: { origins: ['*'] } } }
channels: [{ match: '**' }, { match: a }]
";
    let warnings: Vec<_> = accepted(source).warnings.lines().collect();
    assert_eq!(
        warnings,
        [
            "upstreams.shop: \"shop\" is used by no route; remove it (c.yaml:4:9)",
            "routes[1].match: never matches, since \"all\" before it takes all of it; remove it or move it up (c.yaml:7:25)",
            "routes[1].push.channels: the path's {x} is used by no channel; name it {_x} if that is meant (c.yaml:7:63)",
            "routes[3].match.methods: leave out OPTIONS, so that CORS preflights never reach this route; add it (c.yaml:9:48)",
            "channels[1].match: \"a\" never applies, since an earlier entry covers it; remove it or move it up (c.yaml:10:38)",
        ]
    );
}

#[test]
fn secrets_are_read_and_never_shown() {
    use crate::publish::settings::{PublishAuth, WebhookVerify};
    let source = format!(
        "publish:
  auth: [{{ bearer: {{ token_file: token }} }}, {{ bearer: {{ token_env: TOKEN }} }}]
  webhooks:
    - {{ path: /a, channel: a, verify: {{ standard_webhooks: {{ secret_file: hook }} }} }}
    - {{ path: /b, channel: a, verify: {{ github: {{ secret_file: token }} }} }}
{LISTENERS}{UPSTREAMS}{ROUTES}"
    );
    let config = accepted(&source);
    let tokens: Vec<_> = config
        .publish
        .auth
        .iter()
        .filter_map(|way| match way {
            PublishAuth::Bearer(token) => Some(token.expose()),
            PublishAuth::GripSig(_) => None,
        })
        .collect();
    assert_eq!(tokens, [&b"s3cret-token"[..], b"from-env"]);
    match (&config.publish.webhooks[0].verify, &config.publish.webhooks[1].verify) {
        (WebhookVerify::StandardWebhooks { secret, .. }, WebhookVerify::Hmac(hmac)) => {
            assert_eq!(secret.expose(), b"\x31\xf2\x90\xf6\xbf\x06\x29\x8a\xab\x4f\x08\xd4");
            assert_eq!((hmac.secret.expose(), hmac.header.as_str()), (&b"s3cret-token"[..], "x-hub-signature-256"));
        }
        other => panic!("{other:?}"),
    }
    let shown = config.to_masked_json() + &format!("{config:?}");
    assert!(shown.contains("\"bearer\": \"***\""), "{shown}");
    assert!(!shown.contains("s3cret") && !shown.contains("from-env"), "{shown}");
}

#[test]
fn what_is_shown_can_be_read_again() {
    let (_folder, path) = examples();
    let source = std::fs::read_to_string(path.join("example.yaml")).expect("the example");
    let (start, end) = (source.find("\n  auth:").expect("auth"), source.find("\nadmin:").expect("admin"));
    let source = format!("{}\n{}", &source[..start], &source[end..]);
    // Secrets are not shown, nor where a key was read from.
    let is_shown = |line: &&str| !line.contains("grip-key") && !line.contains("secrets/events");
    let source: String = source.split_inclusive('\n').filter(is_shown).collect();
    let read = |source: &str| match check(source, &path, &|_| None, &mut Sources::default(), Problems::new("c.yaml")) {
        Ok(config) => config.to_masked_json(),
        Err(problems) => panic!("{problems}\n{source}"),
    };
    let shown = read(&source);
    assert_eq!(read(&shown), shown);
}

#[test]
fn a_route_table_is_made() {
    use crate::gateway::settings::Action;
    use http::{HeaderMap, Method};
    let config = accepted(&format!(
        "routes:
  - {{ name: prices, match: {{ path: '/prices/{{symbol}}' }}, push: {{ channels: ['prices.{{symbol}}'], start: {{ last: 1 }} }} }}
  - {{ name: all, match: {{ path: '/**' }}, proxy: {{ upstream: chat }} }}
{LISTENERS}{UPSTREAMS}"
    ));
    let routes = &config.gateway.routes;
    let (route, params) = routes.find("x", "/prices/A%20B", &Method::GET, &HeaderMap::new()).expect("a route");
    let Action::Push(push) = &route.action else { panic!("{route:?}") };
    assert_eq!(push.channels[0].fill(&params).map(|channel| channel.to_string()), Ok("prices.A B".to_owned()));
    assert!(routes.find("x", "/other", &Method::GET, &HeaderMap::new()).is_ok());
}

#[test]
fn a_load_test_s_configuration_loads() {
    let source = r#"
listeners:
  - { name: h1, address: "127.0.0.1:28380" }
  - { name: h2c, address: "127.0.0.1:28382" }
  - name: tls
    address: 127.0.0.1:28343
    protocols: [h2, http/1.1]
    tls: { certificates: [{ cert_file: tls.crt, key_file: tls.key }] }
publish: { address: "127.0.0.1:28385" }
admin: { address: "127.0.0.1:28389" }
routes:
  - name: lab
    match: { path: "/{kind}/{ch}" }             # the request chooses the transport
    push: { channels: ["{ch}"], transports: [sse, websocket, long_poll] }
limits: { connections: 20000, connections_per_ip: 20000, streams_per_connection: 1000 }
"#;
    let config = accepted(source);
    assert_eq!((config.listeners.len(), config.limits.connections_per_ip_max), (3, 20_000));
    assert_eq!(config.listeners[2].name.as_ref(), "tls");
}

/// A copy of the repository's `config` folder, with the files that its examples name.
fn examples() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for name in ["example.yaml", "minimal.yaml"] {
        std::fs::copy(source.join(name), folder.path().join(name)).expect("copied");
    }
    for sub in ["tls", "secrets"] {
        std::fs::create_dir(folder.path().join(sub)).expect("a folder");
    }
    write_certificate(&folder.path().join("tls"), "tls.crt", "tls.key");
    write_certificate(&folder.path().join("tls"), "ca.crt", "ca.key");
    for (name, text) in [
        ("publish-token", "a-token\n"),
        ("hook", "whsec_MfKQ9r8GKYqrTwjU\n"),
        ("github", "secret\n"),
        ("grip-key", "changeme\n"),
        ("stripe", "whsec_x\n"),
        ("events", "a-key\n"),
        ("events-next", "b-key\n"),
    ] {
        std::fs::write(folder.path().join("secrets").join(name), text).expect("written");
    }
    let path = folder.path().to_owned();
    (folder, path)
}

#[track_caller]
fn loaded(path: &Path) -> Config {
    match load(path) {
        Ok(config) => config,
        Err(problems) => panic!("{problems}"),
    }
}

#[test]
fn the_examples_load_without_a_warning() {
    let (_folder, path) = examples();
    for name in ["example.yaml", "minimal.yaml"] {
        let config = loaded(&path.join(name));
        assert!(config.warnings.is_empty(), "{}", config.warnings);
    }
}

/// The keys of a schema's definitions, without those of free names.
fn keys_of_schema() -> std::collections::BTreeSet<String> {
    let schema = schemars::schema_for!(file::File).to_value();
    let definitions = schema["$defs"].as_object().expect("definitions");
    let all = definitions.values().chain([&schema]);
    all.flat_map(|one| one["properties"].as_object().into_iter().flatten().map(|(key, _)| key.clone())).collect()
}

#[test]
fn every_key_is_in_the_example_and_in_the_reference() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = std::fs::read_to_string(root.join("config/example.yaml")).expect("the example");
    let reference = std::fs::read_to_string(root.join("docs/configuration.md")).expect("the reference");
    let keys = keys_of_schema();
    assert!(keys.len() > 60, "{keys:?}");
    for key in keys {
        let in_example = example.lines().any(|line| line.contains(&format!("{key}:")));
        assert!(in_example, "{key} is missing in config/example.yaml");
        let told = ["`", "."]
            .iter()
            .any(|before| ["`", ".", "["].iter().any(|after| reference.contains(&format!("{before}{key}{after}"))));
        assert!(told, "{key} is missing in docs/configuration.md");
    }
}

#[test]
fn the_example_says_the_defaults() {
    let example = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/example.yaml"));
    let example = example.expect("the example");
    let config = accepted(&format!("{LISTENERS}{UPSTREAMS}{ROUTES}"));
    let shown: serde_json::Value = serde_json::from_str(&config.to_masked_json()).expect("JSON");
    let scalars = |section: &serde_json::Value| {
        let entries = section.as_object().cloned().unwrap_or_default().into_iter();
        entries.filter(|(_, value)| value.is_string() || value.is_u64() || value.is_boolean()).collect::<Vec<_>>()
    };
    let upstream = &shown["upstreams"]["chat"];
    let sections = [
        &shown["limits"],
        &shown["publish"],
        &shown["admin"],
        &shown["telemetry"],
        &shown["telemetry"]["log"],
        upstream,
        &upstream["timeouts"],
        &upstream["retries"],
        &shown["channels"][0]["history"],
    ];
    for (key, value) in sections.into_iter().flat_map(scalars) {
        let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let said = example.lines().any(|line| {
            line.contains(&format!("{key}:")) && line.contains(&format!("Default: {value}"))
                || line.contains(&format!("{key}: {value} "))
        });
        assert!(said, "config/example.yaml does not say that {key} is {value} by default");
    }
}
