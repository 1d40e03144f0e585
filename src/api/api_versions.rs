//! ApiVersions (key 18): which APIs, in which versions, the broker speaks. The first thing a client asks.
//!
//! # Behavior
//! - The answer is derived from the table of APIs: nothing is advertised that is not answered.
//!
//! # Version notes
//! - v1: throttle time (KIP-124). v2: throttling happens after the response (KIP-219).
//! - v3: flexible; the client's software name and version (KIP-511); features as tagged fields (KIP-584). The
//!   response's header stays at v0.
//! - v4: a feature's lowest level may be 0; up to v3 such features are left out of the supported ones, not of the
//!   finalized ones (KAFKA-17011, KAFKA-17492).
//! - A version that the broker does not know is answered in v0, with UNSUPPORTED_VERSION and the range of
//!   ApiVersions itself (KIP-511).

use super::{APIS, Api};
use crate::error::ErrorCode;
use crate::wire::{Message, messages};

messages! {
    ApiVersionsRequest(18) [0-4, flexible 3+] {
        client_software_name: String [3+],
        client_software_version: String [3+],
    }

    ApiVersionsResponse(18) [0-4, flexible 3+] {
        error_code: i16 [0+],
        api_keys: Vec<ApiVersion> [0+],
        throttle_time_ms: i32 [1+],
        supported_features: Vec<SupportedFeatureKey> [3+ tag 0],
        finalized_features_epoch: i64 [3+ tag 1] = -1,
        finalized_features: Vec<FinalizedFeatureKey> [3+ tag 2],
        zk_migration_ready: bool [3+ tag 3],
    }
    ApiVersion {
        api_key: i16 [0+],
        min_version: i16 [0+],
        max_version: i16 [0+],
    }
    SupportedFeatureKey {
        name: String [3+],
        min_version: i16 [3+],
        max_version: i16 [3+],
    }
    FinalizedFeatureKey {
        name: String [3+],
        max_version_level: i16 [3+],
        min_version_level: i16 [3+],
    }
}

/// A feature of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// Kafka's name for it.
    pub name: &'static str,
    /// The lowest level that is said to be supported: Kafka's, so that clients see what they see there.
    pub lowest: i16,
    /// The level that is in force, and the highest.
    pub level: i16,
}

/// The features: which records the catalog holds, as of Kafka 4.0 (`IBP_4_0_IV3`), that groups may speak the consumer
/// protocol (KIP-848), that a transaction's end raises its producer's epoch if the client knows of it (KIP-890), and
/// that `min.insync.replicas` is the same for all brokers (KIP-966).
pub const FEATURES: [Feature; 4] = [
    feature("metadata.version", 25, 25),
    feature("group.version", 0, 1),
    feature("transaction.version", 0, 2),
    feature("eligible.leader.replicas.version", 0, 1),
];

const fn feature(name: &'static str, lowest: i16, level: i16) -> Feature {
    Feature {
        name,
        lowest,
        level,
    }
}

/// The first version whose clients can read that a feature's lowest level is 0.
const VERSION_LOWEST_0: i16 = 4;

/// Answers with every API of [`APIS`], hence with nothing that is not built.
pub fn handle(version: i16, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let acceptable = |text: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        edge(text.chars().next()) && edge(text.chars().last()) && text.chars().all(inner)
    };
    let named =
        acceptable(&request.client_software_name) && acceptable(&request.client_software_version);
    if version >= 3 && !named {
        return ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..ApiVersionsResponse::default()
        };
    }
    ApiVersionsResponse {
        api_keys: APIS.iter().map(advertise).collect(),
        supported_features: FEATURES
            .iter()
            .filter(|feature| feature.lowest > 0 || version >= VERSION_LOWEST_0)
            .map(supported)
            .collect(),
        finalized_features_epoch: 0,
        finalized_features: FEATURES.iter().map(finalized).collect(),
        ..ApiVersionsResponse::default()
    }
}

/// The answer to a version that is not known, to be sent in v0: ApiVersions' own range (KIP-511).
pub fn refuse_version() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: APIS
            .iter()
            .filter(|api| api.key == ApiVersionsRequest::KEY)
            .map(advertise)
            .collect(),
        ..ApiVersionsResponse::default()
    }
}

fn supported(feature: &Feature) -> SupportedFeatureKey {
    SupportedFeatureKey {
        name: feature.name.into(),
        min_version: feature.lowest,
        max_version: feature.level,
    }
}

fn finalized(feature: &Feature) -> FinalizedFeatureKey {
    FinalizedFeatureKey {
        name: feature.name.into(),
        max_version_level: feature.level,
        min_version_level: feature.level,
    }
}

fn advertise(api: &Api) -> ApiVersion {
    ApiVersion {
        api_key: api.key,
        min_version: *api.versions.start(),
        max_version: *api.versions.end(),
    }
}
