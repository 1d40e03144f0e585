//! DescribeUserScramCredentials (key 50): which users may log in with SCRAM (KIP-554).
//!
//! # Behavior
//! - There is no log-in and so no such user: RESOURCE_NOT_FOUND for each that is asked for, once.
//!
//! # Version notes
//! - v0 is the only version.

use super::NOTHING_SAID;
use crate::error::ErrorCode;
use crate::wire::messages;
use std::collections::HashMap;

messages! {
    DescribeUserScramCredentialsRequest(50) [0-0, flexible 0+] {
        users: Option<Vec<UserName>> [0+],
    }
    UserName {
        name: String [0+],
    }

    DescribeUserScramCredentialsResponse(50) [0-0, flexible 0+] {
        throttle_time_ms: i32 [0+],
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        results: Vec<DescribeUserScramCredentialsResult> [0+],
    }
    DescribeUserScramCredentialsResult {
        user: String [0+],
        error_code: i16 [0+],
        error_message: Option<String> [0+],
        credential_infos: Vec<CredentialInfo> [0+],
    }
    CredentialInfo {
        mechanism: i8 [0+],
        iterations: i32 [0+],
    }
}

/// Answers for each user that is asked for; null and an empty list ask for all, of which there is none.
pub fn handle(
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let users = request.users.unwrap_or_default();
    let mut times: HashMap<&str, u32> = HashMap::new();
    for user in &users {
        *times.entry(&user.name).or_default() += 1;
    }
    let result = |user: &UserName| {
        let name = &user.name;
        let (code, sentence) = match times.remove(name.as_str())? {
            1 => (
                ErrorCode::ResourceNotFound,
                format!("Attempt to describe a user credential that does not exist: {name}"),
            ),
            _ => (
                ErrorCode::DuplicateResource,
                format!(
                    "Cannot describe SCRAM credentials for the same user twice in a single request: {name}"
                ),
            ),
        };
        Some(DescribeUserScramCredentialsResult {
            user: name.clone(),
            error_code: code.code(),
            error_message: Some(sentence),
            ..DescribeUserScramCredentialsResult::default()
        })
    };
    DescribeUserScramCredentialsResponse {
        error_message: NOTHING_SAID,
        results: users.iter().filter_map(result).collect(),
        ..DescribeUserScramCredentialsResponse::default()
    }
}
