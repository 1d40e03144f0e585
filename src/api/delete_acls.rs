//! DeleteAcls (key 31): takes back what CreateAcls did (KIP-140).
//!
//! # Behavior
//! - There is no access control: SECURITY_DISABLED for each filter, as Kafka answers without an authorizer.
//!
//! # Version notes
//! - v0 is gone since Kafka 4 (KIP-896). v1: pattern types (KIP-290). v2: flexible (KIP-482). v3: users as resources
//!   (KIP-373).

use crate::error::ErrorCode;
use crate::wire::messages;

messages! {
    DeleteAclsRequest(31) [1-3, flexible 2+] {
        filters: Vec<DeleteAclsFilter> [0+],
    }
    DeleteAclsFilter {
        resource_type_filter: i8 [0+],
        resource_name_filter: Option<String> [0+],
        pattern_type_filter: i8 [1+] = 3,
        principal_filter: Option<String> [0+],
        host_filter: Option<String> [0+],
        operation: i8 [0+],
        permission_type: i8 [0+],
    }

    DeleteAclsResponse(31) [1-3, flexible 2+] {
        throttle_time_ms: i32 [0+],
        filter_results: Vec<DeleteAclsFilterResult> [0+],
    }
    DeleteAclsFilterResult {
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        matching_acls: Vec<DeleteAclsMatchingAcl> [0+],
    }
    DeleteAclsMatchingAcl {
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        resource_type: i8 [0+],
        resource_name: String [0+],
        pattern_type: i8 [1+] = 3,
        principal: String [0+],
        host: String [0+],
        operation: i8 [0+],
        permission_type: i8 [0+],
    }
}

/// Refuses each filter.
pub fn handle(request: DeleteAclsRequest) -> DeleteAclsResponse {
    let refused = |_: DeleteAclsFilter| DeleteAclsFilterResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some("No Authorizer is configured.".into()),
        ..DeleteAclsFilterResult::default()
    };
    DeleteAclsResponse {
        filter_results: request.filters.into_iter().map(refused).collect(),
        ..DeleteAclsResponse::default()
    }
}
