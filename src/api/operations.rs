//! What a client may do with a resource, as a bit field of operations' numbers (KIP-430). Without an authorizer all
//! that Kafka's `AclEntry` lists for the kind of resource is allowed.

/// Kafka's default of such a field: the client did not ask.
pub const NOT_ASKED: i32 = i32::MIN;

/// Read, write, create, delete, alter, describe, describe configs, alter configs.
pub const TOPIC: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);

/// Read, delete, describe, describe configs, alter configs.
pub const GROUP: i32 = bits(&[3, 6, 8, 10, 11]);

/// Create, alter, describe, cluster action, describe configs, alter configs, idempotent write.
pub const CLUSTER: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);

const fn bits(operations: &[u8]) -> i32 {
    let (mut bits, mut i) = (0, 0);
    while i < operations.len() {
        bits |= 1 << operations[i];
        i += 1;
    }
    bits
}

/// `operations` if the client asked for them.
pub fn if_asked(asked: bool, operations: i32) -> i32 {
    if asked { operations } else { NOT_ASKED }
}
