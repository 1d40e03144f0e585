//! DescribeCluster (key 60): the brokers and the cluster's id (KIP-700).
//!
//! # Behavior
//! - One broker, which is also the controller.
//!
//! # Version notes
//! - v1: brokers or controllers may be asked for (KIP-919). v2: fenced brokers too (KIP-1073).

use super::{Call, operations};
use crate::error::ErrorCode;
use crate::wire::messages;

messages! {
    DescribeClusterRequest(60) [0-2, flexible 0+] {
        include_cluster_authorized_operations: bool [0+],
        endpoint_type: i8 [1+] = 1,
        include_fenced_brokers: bool [2+],
    }

    DescribeClusterResponse(60) [0-2, flexible 0+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        endpoint_type: i8 [1+] = 1,
        cluster_id: String [0+],
        controller_id: i32 [0+] = -1,
        brokers: Vec<DescribeClusterBroker> [0+],
        cluster_authorized_operations: i32 [0+] = i32::MIN,
    }
    DescribeClusterBroker {
        broker_id: i32 [0+],
        host: String [0+],
        port: i32 [0+],
        rack: Option<String> [0+],
        is_fenced: bool [2+],
    }
}

/// Kafka's endpoint types (KIP-919).
const ENDPOINT_BROKER: i8 = 1;
const ENDPOINT_CONTROLLER: i8 = 2;

/// Describes the cluster of one node, reachable where this client reached it.
pub fn handle(call: &mut Call<'_>, request: DescribeClusterRequest) -> DescribeClusterResponse {
    if request.endpoint_type != ENDPOINT_BROKER {
        // As Kafka's brokers answer, which are never asked as controllers (KIP-919).
        let (code, sentence) = match request.endpoint_type {
            ENDPOINT_CONTROLLER => (
                ErrorCode::MismatchedEndpointType,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER".into(),
            ),
            unknown => (
                ErrorCode::UnsupportedEndpointType,
                format!("Unsupported endpoint type {unknown}"),
            ),
        };
        return DescribeClusterResponse {
            error_code: code.code(),
            error_message: Some(sentence),
            ..DescribeClusterResponse::default()
        };
    }
    let (host, port) = call.advertised();
    let node_id = call.broker.config().node_id;
    DescribeClusterResponse {
        cluster_id: call.broker.cluster_id.clone(),
        controller_id: node_id,
        brokers: vec![DescribeClusterBroker {
            broker_id: node_id,
            host,
            port,
            rack: None,
            is_fenced: false,
        }],
        cluster_authorized_operations: operations::if_asked(
            request.include_cluster_authorized_operations,
            operations::CLUSTER,
        ),
        ..DescribeClusterResponse::default()
    }
}
