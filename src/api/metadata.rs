//! Metadata (key 3): brokers, topics, partitions and their leaders.
//!
//! # Behavior
//! - One broker, which leads every partition and is the controller.
//! - A topic that is asked for twice is described once.
//! - Names and ids are not mixed: if any topic is asked for by id, names are passed over, as in Kafka.
//! - A missing topic is created if both the client and `auto.create.topics.enable` allow it.
//!
//! # Version notes
//! - v0: an empty list of topics asks for all; from v1 on null does, and an empty list asks for none. v1 also adds
//!   racks, the controller and whether a topic is internal. v2: cluster id (KIP-78). v3: throttle time (KIP-124).
//! - v4: the client says whether missing topics may be created (KAFKA-5291). v5: offline replicas (KIP-112).
//! - v6: throttling happens after the response (KIP-219). v7: leader epochs (KIP-320).
//! - v8: authorized operations (KIP-430); the cluster's moved to DescribeCluster in v11 (KIP-700).
//! - v9: flexible (KIP-482). v10: topic ids in the response; v12: topics asked for by id (KIP-516).
//! - v13: a top-level error, with which a broker tells the client to bootstrap again (KIP-1102).

use super::{Call, Ended, operations};
use crate::catalog::{Catalog, Topic, check_name, is_internal};
use crate::control::{Answer, NewTopic, Request};
use crate::error::ErrorCode;
use crate::storage::{Partition, Status};
use crate::wire::{Uuid, messages};
use std::collections::{HashMap, HashSet};

messages! {
    MetadataRequest(3) [0-13, flexible 9+] {
        topics: Option<Vec<MetadataRequestTopic>> [0+ null 1+],
        allow_auto_topic_creation: bool [4+] = true,
        include_cluster_authorized_operations: bool [8-10],
        include_topic_authorized_operations: bool [8+],
    }
    MetadataRequestTopic {
        topic_id: Uuid [10+],
        name: Option<String> [0+ null 10+],
    }

    MetadataResponse(3) [0-13, flexible 9+] {
        throttle_time_ms: i32 [3+],
        brokers: Vec<MetadataResponseBroker> [0+],
        cluster_id: Option<String> [2+],
        controller_id: i32 [1+] = -1,
        topics: Vec<MetadataResponseTopic> [0+],
        cluster_authorized_operations: i32 [8-10] = i32::MIN,
        error_code: i16 [13+],
    }
    MetadataResponseBroker {
        node_id: i32 [0+],
        host: String [0+],
        port: i32 [0+],
        rack: Option<String> [1+],
    }
    MetadataResponseTopic {
        error_code: i16 [0+],
        name: Option<String> [0+ null 12+],
        topic_id: Uuid [10+],
        is_internal: bool [1+],
        partitions: Vec<MetadataResponsePartition> [0+],
        topic_authorized_operations: i32 [8+] = i32::MIN,
    }
    MetadataResponsePartition {
        error_code: i16 [0+],
        partition_index: i32 [0+],
        leader_id: i32 [0+],
        leader_epoch: i32 [7+] = -1,
        replica_nodes: Vec<i32> [0+],
        isr_nodes: Vec<i32> [0+],
        offline_replicas: Vec<i32> [5+],
    }
}

/// Topics may be asked for by id.
const VERSION_BY_ID: i16 = 12;

/// The topics and partitions that the answer describes, at most.
pub fn rows_max(call: &Call<'_>, request: &MetadataRequest) -> usize {
    let catalog = call.broker.catalog.get();
    let of_topic = |asked: &MetadataRequestTopic| {
        let known = match &asked.name {
            Some(name) => catalog.by_name(name),
            None => catalog.by_id(asked.topic_id),
        };
        known.map_or(0, |topic| topic.rows())
    };
    match &request.topics {
        // Before v1 that asks for all.
        Some(topics) if !topics.is_empty() => topics.iter().map(of_topic).sum(),
        _ => catalog.rows(),
    }
}

/// Describes topics, all or those asked for; one that is missing is made on the way if both the request and
/// `auto.create.topics.enable` allow it, so that the first answer already has it.
pub fn handle(
    call: &mut Call<'_>,
    version: i16,
    request: MetadataRequest,
) -> Result<MetadataResponse, Ended> {
    let catalog = call.broker.catalog.get();
    let asked = request
        .topics
        .filter(|topics| version > 0 || !topics.is_empty());
    let may_ask = |topic: &MetadataRequestTopic| {
        version >= VERSION_BY_ID || topic.name.is_some() && topic.topic_id == Uuid::ZERO
    };
    let topics = match asked {
        Some(asked) if !asked.iter().all(may_ask) => {
            asked.into_iter().map(invalid_request).collect()
        }
        None => catalog
            .topics()
            .map(|topic| describe(call, topic))
            .collect(),
        Some(asked) => {
            let may_create =
                request.allow_auto_topic_creation && call.broker.config().auto_create_topics_enable;
            // A name of few bytes makes an answer of many, so one that is there twice is answered once, as in Kafka.
            let by_id = asked.iter().any(|topic| topic.topic_id != Uuid::ZERO);
            let mut seen = HashSet::new();
            let mut answers: Vec<MetadataResponseTopic> = asked
                .into_iter()
                .filter_map(|topic| key(topic, by_id))
                .filter(|key| seen.insert(key.clone()))
                .map(|key| find(call, &catalog, key))
                .collect();
            if may_create {
                create_missing(call, &mut answers)?;
            }
            answers
        }
    };
    let mut topics: Vec<MetadataResponseTopic> = topics;
    // Of what does not exist too, as in Kafka; but an id that is not known is of no resource.
    let named = topics.iter_mut().filter(|topic| topic.name.is_some());
    let topic_operations = operations::if_asked(
        request.include_topic_authorized_operations,
        operations::TOPIC,
    );
    named.for_each(|topic| topic.topic_authorized_operations = topic_operations);
    let (host, port) = call.advertised();
    let node_id = call.broker.config().node_id;
    Ok(MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id,
            host,
            port,
            rack: None,
        }],
        cluster_id: Some(call.broker.cluster_id.clone()),
        controller_id: node_id,
        topics,
        cluster_authorized_operations: operations::if_asked(
            request.include_cluster_authorized_operations,
            operations::CLUSTER,
        ),
        ..MetadataResponse::default()
    })
}

/// Before v12 a topic cannot be asked for by id, nor without a name.
fn invalid_request(asked: MetadataRequestTopic) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(asked.name.unwrap_or_default()),
        topic_id: asked.topic_id,
        ..MetadataResponseTopic::default()
    }
}

/// What a topic is asked for by.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Name(String),
    Id(Uuid),
}

/// What a topic is asked for by; `None` if by nothing that counts.
fn key(asked: MetadataRequestTopic, by_id: bool) -> Option<Key> {
    match by_id {
        true => Some(asked.topic_id)
            .filter(|id| *id != Uuid::ZERO)
            .map(Key::Id),
        false => asked.name.map(Key::Name),
    }
}

fn find(call: &Call<'_>, catalog: &Catalog, asked: Key) -> MetadataResponseTopic {
    let (found, missing) = match &asked {
        Key::Name(name) => match check_name(name) {
            Ok(()) => (catalog.by_name(name), ErrorCode::UnknownTopicOrPartition),
            Err(_) => (None, ErrorCode::InvalidTopicException),
        },
        Key::Id(id) => (catalog.by_id(*id), ErrorCode::UnknownTopicId),
    };
    if let Some(topic) = found {
        return describe(call, topic);
    }
    let (name, topic_id) = match asked {
        Key::Name(name) => (Some(name), Uuid::ZERO),
        Key::Id(id) => (None, id),
    };
    MetadataResponseTopic {
        error_code: missing.code(),
        is_internal: name.as_deref().is_some_and(is_internal),
        name,
        topic_id,
        ..MetadataResponseTopic::default()
    }
}

fn create_missing(call: &mut Call<'_>, answers: &mut [MetadataResponseTopic]) -> Result<(), Ended> {
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let is_missing =
        |answer: &&mut MetadataResponseTopic| answer.error_code == unknown && !answer.is_internal;
    let new_topic = |answer: &mut MetadataResponseTopic| NewTopic {
        name: answer.name.clone().unwrap_or_default(),
        partitions: -1,
        replication_factor: -1,
        ..NewTopic::default()
    };
    let topics: Vec<NewTopic> = answers
        .iter_mut()
        .filter(is_missing)
        .map(new_topic)
        .collect();
    if topics.is_empty() {
        return Ok(());
    }
    let Answer::Topics(planned) = call.ask(Request::CreateTopics {
        topics,
        validate_only: false,
    })?
    else {
        return Ok(());
    };
    let catalog = call.broker.catalog.get();
    let refused: HashMap<String, ErrorCode> = planned
        .into_iter()
        .filter_map(|planned| Some((planned.name?, planned.fault?.0)))
        .collect();
    for answer in answers.iter_mut().filter(is_missing) {
        let name = answer.name.clone().unwrap_or_default();
        // Another client may have made it in the meantime.
        if let Some(topic) = catalog.by_name(&name) {
            *answer = describe(call, topic);
        } else if let Some(code) = refused.get(&name) {
            answer.error_code = code.code();
        }
    }
    Ok(())
}

fn describe(call: &Call<'_>, topic: &Topic) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter();
    MetadataResponseTopic {
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.map(|p| describe_partition(call, p)).collect(),
        ..MetadataResponseTopic::default()
    }
}

/// One partition: led by the only node, or by nobody while its storage has failed.
pub fn describe_partition(call: &Call<'_>, partition: &Partition) -> MetadataResponsePartition {
    let node_id = call.broker.config().node_id;
    let snapshot = partition.snapshot();
    let found = MetadataResponsePartition {
        partition_index: partition.index,
        leader_id: node_id,
        leader_epoch: snapshot.leader_epoch,
        replica_nodes: vec![node_id],
        isr_nodes: vec![node_id],
        ..MetadataResponsePartition::default()
    };
    match snapshot.status {
        Status::Online => found,
        Status::Offline | Status::Deleted => MetadataResponsePartition {
            error_code: ErrorCode::LeaderNotAvailable.code(),
            leader_id: -1,
            offline_replicas: vec![node_id],
            ..found
        },
    }
}
