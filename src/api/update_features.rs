//! UpdateFeatures (key 57): raises or lowers the levels of the cluster's features (KIP-584, KIP-778).
//!
//! # Behavior
//! - Each feature is at the one level that there is code for: any other level or feature is refused, the same level
//!   is no change. One that is refused refuses the whole request.
//!
//! # Version notes
//! - v1: the kind of upgrade in place of `allow_downgrade`; the dry run (KIP-778).
//! - v2: no results for each feature any more (KIP-1022).

use super::Call;
use super::api_versions::FEATURES;
use crate::error::ErrorCode;
use crate::wire::messages;

messages! {
    UpdateFeaturesRequest(57) [0-2, flexible 0+] {
        timeout_ms: i32 [0+] = 60000,
        feature_updates: Vec<FeatureUpdateKey> [0+],
        validate_only: bool [1+],
    }
    FeatureUpdateKey {
        feature: String [0+],
        max_version_level: i16 [0+],
        allow_downgrade: bool [0-0],
        upgrade_type: i8 [1+] = 1,
    }

    UpdateFeaturesResponse(57) [0-2, flexible 0+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        results: Vec<UpdatableFeatureResult> [0-1],
    }
    UpdatableFeatureResult {
        feature: String [0+],
        error_code: i16 [0+],
        error_message: Option<String> [0+],
    }
}

/// Checks each update; none changes anything, so a dry run is no other.
pub fn handle(call: &mut Call<'_>, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let node_id = call.broker.config().node_id;
    let updates = request.feature_updates;
    let fault = updates.iter().find_map(|update| {
        let why = refusal(update, node_id)?;
        let (feature, level) = (&update.feature, update.max_version_level);
        Some(format!(
            "The update failed for all features since the following feature had an error: Invalid update version \
             {level} for feature {feature}. {why}"
        ))
    });
    if let Some(sentence) = fault {
        return UpdateFeaturesResponse {
            error_code: ErrorCode::InvalidUpdateVersion.code(),
            error_message: Some(sentence),
            ..UpdateFeaturesResponse::default()
        };
    }
    let result = |update: FeatureUpdateKey| UpdatableFeatureResult {
        feature: update.feature,
        error_code: ErrorCode::None.code(),
        // Kafka's, by accident: the name of the code.
        error_message: Some(ErrorCode::None.name().into()),
    };
    UpdateFeaturesResponse {
        results: updates.into_iter().map(result).collect(),
        ..UpdateFeaturesResponse::default()
    }
}

/// Kafka's upgrade types: an upgrade, a downgrade that loses nothing, one that may.
const UPGRADE_TYPES: [i8; 3] = [1, 2, 3];

fn refusal(update: &FeatureUpdateKey, node_id: i32) -> Option<String> {
    let known = FEATURES.iter().find(|known| known.name == update.feature);
    let known = known.map(|known| known.level);
    let asked = update.max_version_level;
    if !UPGRADE_TYPES.contains(&update.upgrade_type) {
        return Some("The controller does not support the given upgrade type.".into());
    }
    match (&update.feature, known) {
        _ if asked < 0 => Some("A feature version cannot be less than 0.".into()),
        (_, Some(level)) if asked == level => None,
        (_, Some(level)) => Some(format!(
            "Local controller {node_id} only supports versions {level}"
        )),
        // Level 0 is that of a feature that is not there.
        (feature, None) if asked == 0 => Some(format!("Feature {feature} not found.")),
        _ => Some(format!(
            "Local controller {node_id} does not support this feature."
        )),
    }
}
