//! What each caller may do: one table for all calls; what is not in it is refused.

use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::Caller;
use crate::audit::Audit;
use crate::pki::{Identity, Role};

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Anybody, also without a certificate.
    Anybody,
    /// This role or a higher one.
    AtLeast(Role),
    /// This machine.
    Local,
    /// A node of the cluster.
    Node,
}

fn needed(path: &str) -> Option<Access> {
    use Access::{Anybody, AtLeast, Local, Node};
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    match (service, method) {
        ("safe.cluster.v1.ClusterService", "Join") => Some(Anybody),
        ("safe.cluster.v1.ClusterService", "Invite")
        | (
            "safe.module.v1.ModuleService",
            "InstallModule" | "RemoveModule" | "RestoreConflict" | "DiscardConflict",
        )
        | ("safe.witness.v1.WitnessAdminService", "AddWitness" | "RemoveWitness") => {
            Some(AtLeast(Role::Admin))
        }
        ("safe.module.v1.ModuleService", "ControlModule" | "SetResource") => Some(AtLeast(Role::Control)),
        ("safe.cluster.v1.ClusterService", "GetCluster")
        | ("safe.node.v1.NodeService", "GetVersion")
        | ("safe.witness.v1.WitnessAdminService", "GetWitness")
        | (
            "safe.module.v1.ModuleService",
            "ValidateModule" | "ListModules" | "GetStatus" | "WatchStatus" | "ListEvents" | "ReadLog"
            | "ListRules" | "ExplainModule" | "ListConflicts" | "ShowConflict",
        )
        | (
            "grpc.health.v1.Health"
            | "grpc.reflection.v1.ServerReflection"
            | "grpc.reflection.v1alpha.ServerReflection",
            _,
        ) => Some(AtLeast(Role::Monitor)),
        ("safe.node.v1.NodeService", "InitCluster" | "JoinCluster")
        | ("safe.witness.v1.WitnessAdminService", "InitWitness" | "InviteCluster" | "ExpelCluster") => {
            Some(Local)
        }
        ("safe.peer.v1.PeerService", _) => Some(Node),
        _ => None,
    }
}

/// Whether this caller may make this call.
fn decide(caller: Option<&Caller>, path: &str) -> Result<(), Status> {
    let Some(caller) = caller else {
        return Err(Status::internal("the caller of this connection is not known"));
    };
    let identity = match caller {
        Caller::Local { .. } => None,
        Caller::Remote { identity, .. } => Some(identity.as_ref()),
    };
    let shown: String = path.chars().take(100).collect();
    let refuse =
        |who: &str| Err(Status::permission_denied(format!("{shown} is for {who}; this is {caller}")));
    match (needed(path), identity) {
        (Some(Access::Anybody), _) | (Some(Access::Local | Access::AtLeast(_)), None) => Ok(()),
        (_, Some(None)) => Err(Status::unauthenticated(
            "a client certificate of this cluster is needed for every call but Join",
        )),
        (None, _) => refuse("nobody"),
        (Some(Access::Local), Some(Some(_))) => refuse("the Unix socket of the node itself"),
        (Some(Access::AtLeast(_) | Access::Node), Some(Some(Identity::Node(_)))) => Ok(()),
        (Some(Access::AtLeast(role)), Some(Some(Identity::User { role: held, .. }))) => {
            if *held >= role {
                Ok(())
            } else {
                refuse(&format!("role {} or higher", role.name()))
            }
        }
        (Some(Access::Node), _) => refuse("nodes of the cluster"),
    }
}

/// Puts the table before all services.
#[derive(Debug, Clone)]
pub(super) struct AccessLayer {
    audit: Audit,
}

impl AccessLayer {
    pub(super) const fn new(audit: Audit) -> Self {
        Self { audit }
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, audit: self.audit.clone() }
    }
}

/// A service behind the table.
#[derive(Debug, Clone)]
pub(super) struct Guarded<S> {
    inner: S,
    audit: Audit,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let caller = request.extensions().get::<Caller>();
        match decide(caller, request.uri().path()) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(status) => {
                let who = caller.map_or_else(|| "unknown".to_owned(), Caller::to_string);
                self.audit.refused("call", &format!("{who}: {}", status.message()));
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(identity: Option<Identity>) -> Caller {
        Caller::Remote { address: "10.0.0.9:4711".parse().unwrap(), identity }
    }

    fn user(role: Role) -> Caller {
        remote(Some(Identity::User { role, name: "ann".to_owned() }))
    }

    const JOIN: &str = "/safe.cluster.v1.ClusterService/Join";
    const STATUS: &str = "/safe.module.v1.ModuleService/GetStatus";
    const CONTROL: &str = "/safe.module.v1.ModuleService/ControlModule";
    const INSTALL: &str = "/safe.module.v1.ModuleService/InstallModule";
    const INIT: &str = "/safe.node.v1.NodeService/InitCluster";
    const GREET: &str = "/safe.peer.v1.PeerService/Greet";
    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

    fn allowed(caller: &Caller) -> Vec<&'static str> {
        let all =
            [JOIN, STATUS, CONTROL, INSTALL, INIT, GREET, REFLECTION, "/safe.module.v1.ModuleService/New"];
        all.into_iter().filter(|path| decide(Some(caller), path).is_ok()).collect()
    }

    #[test]
    fn everybody_may_do_what_the_table_says_and_nothing_else() {
        assert_eq!(allowed(&remote(None)), [JOIN]);
        assert_eq!(allowed(&user(Role::Monitor)), [JOIN, STATUS, REFLECTION]);
        assert_eq!(allowed(&user(Role::Control)), [JOIN, STATUS, CONTROL, REFLECTION]);
        assert_eq!(allowed(&user(Role::Admin)), [JOIN, STATUS, CONTROL, INSTALL, REFLECTION]);
        let node = remote(Some(Identity::Node("n1".to_owned())));
        assert_eq!(allowed(&node), [JOIN, STATUS, CONTROL, INSTALL, GREET, REFLECTION]);
        let local = Caller::Local { uid: 0, pid: 1 };
        assert_eq!(allowed(&local), [JOIN, STATUS, CONTROL, INSTALL, INIT, REFLECTION]);
        assert!(decide(None, STATUS).is_err());
    }

    /// A call that is added to a service and forgotten here would be refused to everybody.
    #[test]
    fn every_call_of_every_service_is_in_the_table() {
        use prost::Message as _;
        let set = prost_types::FileDescriptorSet::decode(safe_proto::DESCRIPTORS).unwrap();
        for file in set.file.iter().filter(|file| !file.package().starts_with("safe.replication")) {
            // A witness's own port has rules of its own.
            for service in file.service.iter().filter(|service| service.name() != "WitnessService") {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    assert!(needed(&path).is_some(), "{path}");
                }
            }
        }
    }
}
