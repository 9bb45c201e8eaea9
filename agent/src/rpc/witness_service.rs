//! WitnessAdminService: this safed as a witness, and the witnesses of its cluster.

use std::path::Path;
use std::sync::Arc;

use safe_proto::settings::WitnessSettings;
use safe_proto::spec::{ArbiterKind, ModuleSpec};
use safe_proto::witness::witness_admin_service_server::WitnessAdminService;
use safe_proto::witness::{
    AddWitnessRequest, AddWitnessResponse, ExpelClusterRequest, ExpelClusterResponse, GetWitnessRequest,
    GetWitnessResponse, InitWitnessRequest, InitWitnessResponse, InviteClusterRequest, InviteClusterResponse,
    KnownWitness, RemoveWitnessRequest, RemoveWitnessResponse,
};
use tonic::{Request, Response, Status};

use super::node_service::caller;
use super::validate;
use crate::module::lock_named;
use crate::spec_store;
use crate::store::Store;

/// The service.
pub(super) struct Desk(pub(super) Arc<super::Desk>);

#[tonic::async_trait]
impl WitnessAdminService for Desk {
    async fn init_witness(
        &self,
        request: Request<InitWitnessRequest>,
    ) -> Result<Response<InitWitnessResponse>, Status> {
        let (caller, desk, request) = (caller(&request), Arc::clone(&self.0), request.into_inner());
        let work = async move {
            let InitWitnessRequest { name, addresses, port } = request;
            let what = format!("make a witness {name:.63}");
            let port = u16::try_from(port).map_err(|_| Status::invalid_argument("a port is 1 to 65535"))?;
            let witness = Arc::clone(&desk.witness);
            let outcome = super::blocking(move || Ok(witness.init(&name, &addresses, port)?)).await;
            desk.audit(&caller, &what, &outcome);
            outcome
        };
        let (token, expires) = super::whole(work).await?;
        Ok(Response::new(InitWitnessResponse { token, expires: seconds(expires) }))
    }

    async fn invite_cluster(
        &self,
        request: Request<InviteClusterRequest>,
    ) -> Result<Response<InviteClusterResponse>, Status> {
        let caller = caller(&request);
        let ttl = validate::ttl(request.into_inner().ttl_s)?;
        let witness = Arc::clone(&self.0.witness);
        let outcome = super::blocking(move || Ok(witness.invite(ttl)?)).await;
        self.0.audit(&caller, "invite a cluster to the witness", &outcome);
        let (token, expires) = outcome?;
        Ok(Response::new(InviteClusterResponse { token, expires: seconds(expires) }))
    }

    async fn expel_cluster(
        &self,
        request: Request<ExpelClusterRequest>,
    ) -> Result<Response<ExpelClusterResponse>, Status> {
        let (caller, cluster) = (caller(&request), request.into_inner().cluster);
        let what = format!("expel cluster {cluster:.63} from the witness");
        let witness = Arc::clone(&self.0.witness);
        let outcome = super::blocking(move || Ok(witness.expel(&cluster)?)).await;
        self.0.audit(&caller, &what, &outcome);
        outcome.map(|()| Response::new(ExpelClusterResponse {}))
    }

    async fn get_witness(
        &self,
        _: Request<GetWitnessRequest>,
    ) -> Result<Response<GetWitnessResponse>, Status> {
        let witness = Arc::clone(&self.0.witness);
        let shown = super::blocking(move || Ok(witness.show())).await?;
        let joined = self.0.cluster.joined();
        let known = joined.iter().flat_map(|joined| joined.held.settings.witnesses()).map(known).collect();
        Ok(Response::new(match shown {
            Some(shown) => GetWitnessResponse {
                name: shown.name,
                addresses: shown.addresses,
                clusters: shown.clusters,
                known,
            },
            None => GetWitnessResponse { known, ..GetWitnessResponse::default() },
        }))
    }

    async fn add_witness(
        &self,
        request: Request<AddWitnessRequest>,
    ) -> Result<Response<AddWitnessResponse>, Status> {
        let (caller, desk) = (caller(&request), Arc::clone(&self.0));
        let AddWitnessRequest { token, target } = request.into_inner();
        validate::witness_target(&target, true)?;
        if token.len() > validate::MAX_WITNESS_TOKEN {
            return Err(Status::invalid_argument("that is not the token of a witness: it is too long"));
        }
        let work = async move {
            let outcome = desk.cluster.add_witness(&token, &target).await.map_err(Status::from);
            desk.audit(&caller, "add a witness", &outcome);
            outcome
        };
        let added = super::whole(work).await?;
        Ok(Response::new(AddWitnessResponse { witness: Some(known(&added)) }))
    }

    async fn remove_witness(
        &self,
        request: Request<RemoveWitnessRequest>,
    ) -> Result<Response<RemoveWitnessResponse>, Status> {
        let (caller, desk) = (caller(&request), Arc::clone(&self.0));
        let target = request.into_inner().target;
        validate::witness_target(&target, false)?;
        let what = format!("remove the witness {target}");
        let work = async move { super::blocking(move || remove(&desk, &target)).await };
        let outcome = super::whole(work).await;
        self.0.audit(&caller, &what, &outcome);
        outcome.map(|()| Response::new(RemoveWitnessResponse {}))
    }
}

/// Unless a module here would lose it.
fn remove(desk: &super::Desk, target: &str) -> Result<(), Status> {
    let paths = &desk.context.paths;
    for module in spec_store::installed(paths).unwrap_or_default() {
        let file = paths.module(&module).spec().join(safe_proto::spec::FILE);
        let spec = ModuleSpec::parse(&std::fs::read_to_string(file).unwrap_or_default());
        if spec.is_ok_and(|spec| spec.arbiter.iter().any(|arbiter| arbiter.target == target)) {
            return Err(Status::failed_precondition(format!(
                "module {module} names the witness {target}: install it without, and try again"
            )));
        }
        if still_asked(&paths.module(&module).state(), target) {
            return Err(Status::failed_precondition(format!(
                "module {module} had the witness {target} before, and its other node may still decide by it: start that \
                 node, wait until it has the present version (safectl module list), and try again"
            )));
        }
    }
    Ok(desk.cluster.remove_witness(target)?)
}

/// A module that does not know yet whether its other node has the present arbiter asks the former ones as well.
fn still_asked(state: &Path, target: &str) -> bool {
    let lock = lock_named(ArbiterKind::Witness, target);
    Store::open(state).is_ok_and(|(_, hard)| hard.former_locks.contains(&lock))
}

fn known(witness: &WitnessSettings) -> KnownWitness {
    KnownWitness { name: witness.name.clone(), target: witness.target.clone(), ca: witness.ca.clone() }
}

fn seconds(expires: u64) -> i64 {
    i64::try_from(expires).unwrap_or(i64::MAX)
}
