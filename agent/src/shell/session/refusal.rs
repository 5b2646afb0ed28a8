//! Which kind of refusal the coordinator is told, by what stands in the way.

use plimsoll_proto::v1;

use crate::core::admission::NotHeld;
use crate::core::limits::LimitError;
use crate::shell::nats_target::ConnectError;
use crate::shell::worker::WorkerRefusal;

pub(super) fn kind_of_limit(limit: &LimitError) -> v1::RefusedKind {
    match limit {
        LimitError::Target { .. } => v1::RefusedKind::Denied,
        LimitError::Rate { .. } | LimitError::Connections { .. } | LimitError::Run { .. } => v1::RefusedKind::Ceiling,
    }
}

pub(super) fn kind_of_step(why: &NotHeld) -> v1::RefusedKind {
    match why {
        NotHeld::Limit(limit) => kind_of_limit(limit),
        NotHeld::OtherUsers { .. } => v1::RefusedKind::Invalid,
        NotHeld::Book { .. } => v1::RefusedKind::Ceiling,
    }
}

pub(super) fn kind_of_worker(refusal: &WorkerRefusal) -> v1::RefusedKind {
    match refusal {
        WorkerRefusal::Connect(ConnectError::Unreachable { .. }) | WorkerRefusal::NotConfirmed { .. } => {
            v1::RefusedKind::Unreachable
        }
        WorkerRefusal::Connect(ConnectError::Unauthorized { .. }) => v1::RefusedKind::Unauthorized,
        WorkerRefusal::Denied { .. } | WorkerRefusal::NobodyListens { .. } => v1::RefusedKind::Denied,
        WorkerRefusal::Fixtures(_) => v1::RefusedKind::Fixtures,
        WorkerRefusal::Asked(_) => v1::RefusedKind::Invalid,
        WorkerRefusal::Box(_) => v1::RefusedKind::Box,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_box_lacks_is_not_said_to_be_wrong_with_what_was_asked() {
        let kind = |refusal| kind_of_worker(&refusal);
        assert_eq!(kind(WorkerRefusal::Box("no timer: too many open files".into())), v1::RefusedKind::Box);
        assert_eq!(kind(WorkerRefusal::Asked("no consumer".into())), v1::RefusedKind::Invalid);
        assert_eq!(kind(WorkerRefusal::NotConfirmed { count: 1 }), v1::RefusedKind::Unreachable);
    }
}
