//! `plimsoll.agent.v1`: the fleet protocol as generated types. The .proto file beside this crate says what each field
//! means; the checks of what arrives stand in `plimsoll_common::wire`.

#![allow(missing_docs, clippy::all)]

/// Version 1 of the protocol between the coordinator and its agents.
pub mod v1 {
    tonic::include_proto!("plimsoll.agent.v1");
}

/// What `Claim` and `Hello` carry. Raised whenever an older peer could misread a message.
pub const PROTOCOL_VERSION: u32 = 2;
