//! What a change of client quotas would write; pure, as [`super::plan`].

use crate::catalog::State;
use crate::quota::Entity;
use crate::wire::metadata_records::{ClientQuotaRecord, MetadataRecord, QuotaEntity};

/// One quota to be set or removed (KIP-546); what was asked for has been checked.
#[derive(Clone, Debug)]
pub struct QuotaChange {
    /// Whom it is for.
    pub entity: Entity,
    /// Which.
    pub key: String,
    /// `None`: remove it.
    pub value: Option<f64>,
}

/// The records of those changes that change something.
pub fn alter_quotas(state: &State, changes: Vec<QuotaChange>) -> Vec<MetadataRecord> {
    let changed = changes.into_iter().filter(|change| {
        let values = state.quotas.get(&change.entity);
        values.and_then(|values| values.get(&change.key)).copied() != change.value
    });
    let part = |(kind, name)| QuotaEntity {
        entity_type: kind,
        entity_name: name,
    };
    changed
        .map(|change| {
            MetadataRecord::ClientQuota(ClientQuotaRecord {
                entity: change.entity.into_iter().map(part).collect(),
                key: change.key,
                value: change.value.unwrap_or_default(),
                remove: change.value.is_none(),
            })
        })
        .collect()
}
