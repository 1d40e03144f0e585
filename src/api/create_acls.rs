//! CreateAcls (key 30): lets someone do something, or forbids it (KIP-140).
//!
//! # Behavior
//! - There is no access control: SECURITY_DISABLED for each creation, as Kafka answers without an authorizer.
//!
//! # Version notes
//! - v0 is gone since Kafka 4 (KIP-896). v1: pattern types (KIP-290). v2: flexible (KIP-482). v3: users as resources
//!   (KIP-373).

use crate::error::ErrorCode;
use crate::wire::messages;

messages! {
    CreateAclsRequest(30) [1-3, flexible 2+] {
        creations: Vec<AclCreation> [0+],
    }
    AclCreation {
        resource_type: i8 [0+],
        resource_name: String [0+],
        resource_pattern_type: i8 [1+] = 3,
        principal: String [0+],
        host: String [0+],
        operation: i8 [0+],
        permission_type: i8 [0+],
    }

    CreateAclsResponse(30) [1-3, flexible 2+] {
        throttle_time_ms: i32 [0+],
        results: Vec<AclCreationResult> [0+],
    }
    AclCreationResult {
        error_code: i16 [0+],
        error_message: Option<String> [0+],
    }
}

/// Refuses each creation.
pub fn handle(request: CreateAclsRequest) -> CreateAclsResponse {
    let refused = |_: AclCreation| AclCreationResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some("No Authorizer is configured.".into()),
    };
    CreateAclsResponse {
        results: request.creations.into_iter().map(refused).collect(),
        ..CreateAclsResponse::default()
    }
}
