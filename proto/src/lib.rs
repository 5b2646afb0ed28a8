//! `plimsoll.agent.v1`: the fleet protocol as generated types. The .proto file beside this crate says what each field
//! means; the checks of what arrives stand in `plimsoll_common::wire`.

#![allow(missing_docs, clippy::all)]

/// The protocol between the coordinator and its agents; [`PROTOCOL_VERSION`] says which version of it.
pub mod v1 {
    tonic::include_proto!("plimsoll.agent.v1");
}

/// What `Claim` and `Hello` carry. Raised whenever an older peer could misread a message.
pub const PROTOCOL_VERSION: u32 = 2;
