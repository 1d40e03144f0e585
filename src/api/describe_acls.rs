//! DescribeAcls (key 29): who may do what (KIP-140).
//!
//! # Behavior
//! - There is no access control: SECURITY_DISABLED, as Kafka answers without an authorizer.
//!
//! # Version notes
//! - v0 is gone since Kafka 4 (KIP-896). v1: pattern types (KIP-290). v2: flexible (KIP-482). v3: users as resources
//!   (KIP-373).

use crate::error::ErrorCode;
use crate::wire::messages;

messages! {
    DescribeAclsRequest(29) [1-3, flexible 2+] {
        resource_type_filter: i8 [0+],
        resource_name_filter: Option<String> [0+],
        pattern_type_filter: i8 [1+] = 3,
        principal_filter: Option<String> [0+],
        host_filter: Option<String> [0+],
        operation: i8 [0+],
        permission_type: i8 [0+],
    }

    DescribeAclsResponse(29) [1-3, flexible 2+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        resources: Vec<DescribeAclsResource> [0+],
    }
    DescribeAclsResource {
        resource_type: i8 [0+],
        resource_name: String [0+],
        pattern_type: i8 [1+] = 3,
        acls: Vec<AclDescription> [0+],
    }
    AclDescription {
        principal: String [0+],
        host: String [0+],
        operation: i8 [0+],
        permission_type: i8 [0+],
    }
}

/// Refuses, whatever is asked for.
pub fn handle(_: DescribeAclsRequest) -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some("No Authorizer is configured on the broker".into()),
        ..DescribeAclsResponse::default()
    }
}
