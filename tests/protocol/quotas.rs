//! Client quotas: set, described, enforced, removed, and there again after a restart (KIP-13, KIP-219, KIP-546).

use crate::common::Broker;
use crate::common::client::{Client, FETCH, PRODUCE, batch, fetch, produce, values};
use crate::start;
use ottla::api::alter_client_quotas::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, EntityData, EntryData, EntryResult, OpData,
};
use ottla::api::describe_client_quotas::{
    self as describe, ComponentData, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
};
use ottla::api::fetch::FetchResponse;
use ottla::api::produce::ProduceResponse;
use ottla::error::ErrorCode;
use std::time::{Duration, Instant};

/// The client-id of the raw client.
const RAW: &str = "raw";

fn entity(parts: &[(&str, Option<&str>)]) -> Vec<EntityData> {
    let part = |(kind, name): &(&str, Option<&str>)| EntityData {
        entity_type: kind.to_string(),
        entity_name: name.map(str::to_owned),
    };
    parts.iter().map(part).collect()
}

fn entry(parts: &[(&str, Option<&str>)], key: &str, value: Option<f64>) -> EntryData {
    EntryData {
        entity: entity(parts),
        ops: vec![OpData {
            key: key.into(),
            value: value.unwrap_or_default(),
            remove: value.is_none(),
        }],
    }
}

fn alter(client: &mut Client, entries: Vec<EntryData>, validate_only: bool) -> Vec<EntryResult> {
    let request = AlterClientQuotasRequest {
        entries,
        validate_only,
    };
    let answer: AlterClientQuotasResponse = client.call(1, &request);
    answer.entries
}

#[track_caller]
fn set(client: &mut Client, parts: &[(&str, Option<&str>)], key: &str, value: Option<f64>) {
    let results = alter(client, vec![entry(parts, key, value)], false);
    let codes: Vec<_> = results.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [0], "{results:?}");
}

fn filter(kind: &str, match_type: i8, name: Option<&str>) -> ComponentData {
    ComponentData {
        entity_type: kind.into(),
        match_type,
        r#match: name.map(str::to_owned),
    }
}

fn ask(
    client: &mut Client,
    components: Vec<ComponentData>,
    strict: bool,
) -> DescribeClientQuotasResponse {
    client.call(1, &DescribeClientQuotasRequest { components, strict })
}

/// What matches, as `kind=name,kind: key=value`; a null name is `*`.
fn told(client: &mut Client, components: Vec<ComponentData>, strict: bool) -> Vec<String> {
    let answer = ask(client, components, strict);
    assert_eq!(answer.error_code, 0, "{answer:?}");
    assert_eq!(answer.error_message.as_deref(), Some(""));
    let part = |part: &describe::EntityData| {
        let name = part.entity_name.as_deref().unwrap_or("*");
        format!("{}={name}", part.entity_type)
    };
    let line = |entry: describe::EntryData| {
        let entity: Vec<_> = entry.entity.iter().map(part).collect();
        let value = |value: &describe::ValueData| format!(" {}={}", value.key, value.value);
        let values: String = entry.values.iter().map(value).collect();
        format!("{}:{values}", entity.join(","))
    };
    answer.entries.unwrap().into_iter().map(line).collect()
}

#[test]
fn what_is_set_is_described_by_filter_and_survives_a_restart() {
    let (data, broker, mut client) = start(&[]);
    let c = &mut client;
    let (rate, any) = ("producer_byte_rate", "user=*: producer_byte_rate=1000");
    set(c, &[("user", None)], rate, Some(1000.0));
    set(
        c,
        &[("user", Some("u")), ("client-id", None)],
        rate,
        Some(2000.0),
    );
    set(
        c,
        &[("client-id", Some("c"))],
        "request_percentage",
        Some(12.5),
    );
    set(
        c,
        &[("ip", Some("10.0.0.1"))],
        "connection_creation_rate",
        Some(3.0),
    );
    let all = told(c, vec![], false);
    assert_eq!(all.len(), 4);
    assert_eq!(told(c, vec![filter("user", 1, None)], true), [any]);
    let pair = "client-id=*,user=u: producer_byte_rate=2000";
    assert_eq!(told(c, vec![filter("user", 2, None)], false), [any, pair]);
    assert_eq!(told(c, vec![filter("user", 2, None)], true), [any]);
    let exact = vec![filter("user", 0, Some("u")), filter("client-id", 2, None)];
    assert_eq!(told(c, exact, true), [pair]);
    let ip = "ip=10.0.0.1: connection_creation_rate=3";
    assert_eq!(told(c, vec![filter("ip", 0, Some("10.0.0.1"))], true), [ip]);
    assert!(told(c, vec![filter("ip", 1, None)], false).is_empty());
    assert!(told(c, vec![], true).is_empty());
    // What is only validated, and what is not there to be removed, changes nothing.
    alter(c, vec![entry(&[("user", None)], rate, Some(5.0))], true);
    set(c, &[("user", Some("nobody"))], rate, None);
    set(c, &[("client-id", Some("c"))], "request_percentage", None);
    assert_eq!(told(c, vec![], false).len(), 3);

    assert!(broker.stop().success());
    let broker = Broker::start(data.path(), &[]);
    let c = &mut Client::connect(&broker.address);
    assert_eq!(told(c, vec![], false).len(), 3);
    assert_eq!(told(c, vec![filter("user", 2, None)], false), [any, pair]);
}

#[test]
fn the_keys_of_one_entity_come_in_kafkas_order() {
    let (_data, _broker, mut client) = start(&[]);
    let c = &mut client;
    for (key, value) in [
        ("producer_byte_rate", 1.0),
        ("consumer_byte_rate", 2.0),
        ("request_percentage", 0.5),
    ] {
        set(c, &[("user", Some("u"))], key, Some(value));
    }
    let line = "user=u: consumer_byte_rate=2 request_percentage=0.5 producer_byte_rate=1";
    assert_eq!(told(c, vec![], false), [line]);
}

#[test]
fn a_bad_entity_is_refused_and_the_good_ones_beside_it_are_set() {
    let (_data, _broker, mut client) = start(&[]);
    let rate = "consumer_byte_rate";
    let entries = vec![
        entry(&[("client-id", Some("good"))], rate, Some(1.0)),
        entry(&[("client-id", Some("zero"))], rate, Some(0.0)),
        entry(&[("client-id", Some("odd"))], "no_such_rate", Some(1.0)),
        entry(&[("ip", None), ("user", None)], rate, Some(1.0)),
        entry(&[("group", None)], rate, Some(1.0)),
        entry(&[], rate, Some(1.0)),
    ];
    let results = alter(&mut client, entries, false);
    assert_eq!(results.len(), 6);
    let invalid = ErrorCode::InvalidRequest.code();
    for result in results {
        let good = result.entity == entity(&[("client-id", Some("good"))]);
        assert_eq!(
            result.error_code,
            if good { 0 } else { invalid },
            "{result:?}"
        );
        assert_eq!(result.error_message.is_none(), good);
    }
    let good = ["client-id=good: consumer_byte_rate=1"];
    assert_eq!(told(&mut client, vec![], false), good);
}

#[test]
fn a_bad_filter_is_refused_with_kafkas_code() {
    let (_data, _broker, mut client) = start(&[]);
    let cases = [
        (vec![filter("", 2, None)], ErrorCode::InvalidRequest),
        (
            vec![filter("group", 2, None)],
            ErrorCode::UnsupportedVersion,
        ),
        (vec![filter("user", 3, None)], ErrorCode::InvalidRequest),
        (vec![filter("user", 0, None)], ErrorCode::InvalidRequest),
        (
            vec![filter("user", 1, Some("u"))],
            ErrorCode::InvalidRequest,
        ),
        (
            vec![filter("user", 2, Some("u"))],
            ErrorCode::InvalidRequest,
        ),
        (
            vec![filter("user", 2, None), filter("user", 1, None)],
            ErrorCode::InvalidRequest,
        ),
        (
            vec![filter("user", 2, None), filter("ip", 2, None)],
            ErrorCode::InvalidRequest,
        ),
    ];
    for (components, code) in cases {
        let answer = ask(&mut client, components, false);
        assert_eq!(answer.error_code, code.code(), "{answer:?}");
        assert!(answer.error_message.is_some() && answer.entries.is_none());
    }
}

#[test]
fn a_producer_over_its_quota_is_answered_at_once_and_then_not_read() {
    let (_data, _broker, mut client) = start(&[]);
    let mut admin = Client::connect(&client.stream().peer_addr().unwrap().to_string());
    client.create("t", &[]);
    let rate = "producer_byte_rate";
    set(
        &mut admin,
        &[("client-id", Some(RAW))],
        rate,
        Some(10_000.0),
    );
    // The first 10 s' worth is free; 8,000 bytes more cost 0.8 s.
    let large = batch(&["x".repeat(108_000).as_str()]);
    let began = Instant::now();
    client.send(PRODUCE, &produce("t", -1, &large));
    let unanswered = client.frame(PRODUCE, &produce("t", 0, &batch(&["unanswered"])));
    client.send_bytes(&unanswered);
    client.send(PRODUCE, &produce("t", -1, &batch(&["second"])));
    let answer: ProduceResponse = client.receive(PRODUCE);
    let throttle_ms = answer.throttle_time_ms;
    assert!((800..1000).contains(&throttle_ms), "{throttle_ms}");
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    // It is stored, and others are served meanwhile.
    assert_eq!(admin.offset("t", -1).offset, 1);
    // The answer was sent before the time began, and came after it was sent.
    assert_eq!(client.produced().base_offset, 2);
    assert!(began.elapsed() >= Duration::from_millis(throttle_ms as u64));

    set(&mut admin, &[("client-id", Some(RAW))], rate, None);
    client.send(PRODUCE, &produce("t", -1, &large));
    let answer: ProduceResponse = client.receive(PRODUCE);
    assert_eq!(answer.throttle_time_ms, 0);
}

#[test]
fn a_consumer_over_its_quota_gets_an_empty_answer_and_then_the_records() {
    let (_data, _broker, mut client) = start(&[]);
    let mut admin = Client::connect(&client.stream().peer_addr().unwrap().to_string());
    client.create("t", &[]);
    client.store("t", &batch(&["x".repeat(95_000).as_str()]));
    let rate = "consumer_byte_rate";
    set(&mut admin, &[("user", None)], rate, Some(10_000.0));
    // The first 10 s' worth is free; 10,000 bytes more cost 1 s.
    assert_eq!(values(&client.fetch("t", 0).records).len(), 1);
    client.store("t", &batch(&["x".repeat(15_000).as_str()]));
    let began = Instant::now();
    client.send(FETCH, &fetch("t", 1, 0, 0));
    client.send(FETCH, &fetch("t", 1, 0, 0));
    let answer: FetchResponse = client.receive(FETCH);
    let throttle_ms = answer.throttle_time_ms;
    assert!((500..2000).contains(&throttle_ms), "{throttle_ms}");
    assert_eq!((answer.error_code, answer.responses.len()), (0, 0));
    // The quota is the user's, and so the other connection's too; what it asks for besides is not throttled.
    assert_eq!(admin.offset("t", -1).offset, 2);
    set(&mut admin, &[("user", None)], rate, None);
    let answer: FetchResponse = client.receive(FETCH);
    assert!(began.elapsed() >= Duration::from_millis(throttle_ms as u64));
    assert_eq!(answer.throttle_time_ms, 0);
    assert_eq!(values(&answer.responses[0].partitions[0].records).len(), 1);
}

/// One that ends its side has nothing to be kept from: what it sent is handled, and the connection's thread ends.
#[test]
fn a_throttled_client_that_leaves_is_not_waited_for() {
    let (_data, broker, mut client) = start(&[]);
    client.create("t", &[]);
    set(
        &mut client,
        &[("client-id", None)],
        "producer_byte_rate",
        Some(1.0),
    );
    let mut leaving = Client::connect(&broker.address);
    for value in ["a", "b"] {
        let unanswered = leaving.frame(PRODUCE, &produce("t", 0, &batch(&[value])));
        leaving.send_bytes(&unanswered);
    }
    leaving.send(PRODUCE, &produce("t", -1, &batch(&["c"])));
    let end = std::net::Shutdown::Write;
    leaving.stream().shutdown(end).unwrap();
    assert_eq!(leaving.produced().base_offset, 2);
    leaving.expect_close();
}

/// Two samples of a second: what is free at once is a second's worth.
#[test]
fn the_window_of_quotas_is_set() {
    let settings = ["quota.window.num=2", "quota.window.size.seconds=1"];
    let (_data, _broker, mut client) = start(&settings);
    client.create("t", &[]);
    let rate = "producer_byte_rate";
    set(&mut client, &[("client-id", None)], rate, Some(100_000.0));
    let batch = batch(&["x".repeat(110_000).as_str()]);
    client.send(PRODUCE, &produce("t", -1, &batch));
    let answer: ProduceResponse = client.receive(PRODUCE);
    let throttle_ms = answer.throttle_time_ms;
    assert!((100..200).contains(&throttle_ms), "{throttle_ms}");
}
