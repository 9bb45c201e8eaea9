//! What nodes ask of a witness.

use std::sync::Arc;

use safe_failover::lineage::LineageId;
use safe_proto::settings::label;
use safe_proto::witness::witness_service_server::WitnessService;
use safe_proto::witness::{
    ReadRecordRequest, ReadRecordResponse, Record, RegisterRequest, RegisterResponse, SwapRecordRequest,
    SwapRecordResponse,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::keep::{Keep, Known};
use super::port::Client;
use super::records::{self, RecordError};
use crate::audit::Audit;
use crate::peer::versions;
use crate::pki::Identity;

/// Calls that touch the disk at the same time.
const AT_DISK: usize = 64;

/// The service.
pub(super) struct Service {
    keep: Arc<Keep>,
    audit: Audit,
    at_disk: Arc<Semaphore>,
}

impl Service {
    pub(super) fn new(keep: Arc<Keep>, audit: Audit) -> Self {
        Self { keep, audit, at_disk: Arc::new(Semaphore::new(AT_DISK)) }
    }

    /// Runs to its end also when the caller hangs up: a record half changed is none.
    async fn at_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let place = Arc::clone(&self.at_disk).acquire_owned().await;
        let place = place.map_err(|error| Status::internal(error.to_string()))?;
        let work = move || {
            let _place = place;
            work()
        };
        let ended = tokio::task::spawn_blocking(work).await;
        ended.map_err(|error| Status::internal(format!("interrupted: {error}")))?
    }

    /// The caller's cluster, and which of its nodes the caller is.
    fn caller<T>(&self, request: &Request<T>) -> Result<(Arc<Known>, String), Status> {
        let client = client(request)?;
        let known = self.keep.cluster(&client.ca).ok_or_else(|| {
            Status::permission_denied(
                "the witness does not know this cluster: type `safectl witness invite` there, and `safectl witness add \
                 TOKEN` here",
            )
        })?;
        let node = node(&client, &known.name)?;
        Ok((known, node))
    }
}

#[tonic::async_trait]
impl WitnessService for Service {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let client = client(&request)?;
        let RegisterRequest { protocol, secret, cluster } = request.into_inner();
        versions::common(&[protocol]).map_err(Status::failed_precondition)?;
        label("cluster", &cluster).map_err(|error| Status::invalid_argument(error.0))?;
        let node = node(&client, &cluster)?;
        let (keep, ca, name) = (Arc::clone(&self.keep), client.ca, cluster.clone());
        let outcome = self.at_disk(move || Ok(keep.register(ca, &name, &secret)?)).await;
        let said = outcome.as_ref().map_or_else(Status::to_string, |()| "done".to_owned());
        self.audit.changed(&format!("{node} at {}", client.address), &format!("register {cluster}"), &said);
        outcome?;
        Ok(Response::new(RegisterResponse { witness: self.keep.identity.settings.name.clone() }))
    }

    async fn read_record(
        &self,
        request: Request<ReadRecordRequest>,
    ) -> Result<Response<ReadRecordResponse>, Status> {
        let (known, _) = self.caller(&request)?;
        let module = request.into_inner().module;
        label("module", &module).map_err(|error| Status::invalid_argument(error.0))?;
        // It may have to wait for a write that waits for the disk.
        let record = self.at_disk(move || known.records.get(&module).map_err(status)).await?;
        Ok(Response::new(ReadRecordResponse { record: record.as_ref().map(wire) }))
    }

    async fn swap_record(
        &self,
        request: Request<SwapRecordRequest>,
    ) -> Result<Response<SwapRecordResponse>, Status> {
        let (known, node) = self.caller(&request)?;
        let SwapRecordRequest { module, expect, lineage } = request.into_inner();
        label("module", &module).map_err(|error| Status::invalid_argument(error.0))?;
        let wrong = || Status::invalid_argument("a lineage has 16 bytes and is not zero");
        let expect = if expect.is_empty() { None } else { Some(id(&expect).ok_or_else(wrong)?) };
        let lineage = id(&lineage).ok_or_else(wrong)?;
        let swap = move || known.records.swap(&module, expect, lineage, &node).map_err(status);
        let swapped = self.at_disk(swap).await?;
        Ok(Response::new(SwapRecordResponse {
            swapped: swapped.swapped,
            record: swapped.record.as_ref().map(wire),
        }))
    }
}

fn client<T>(request: &Request<T>) -> Result<Client, Status> {
    let client = request.extensions().get::<Client>().cloned();
    client.ok_or_else(|| Status::internal("the caller of this connection is not known"))
}

/// The node that the certificate names, of this cluster.
fn node(client: &Client, cluster: &str) -> Result<String, Status> {
    match Identity::of_certificate(&client.certificate, cluster) {
        Ok(Identity::Node(node)) => Ok(node),
        Ok(other) => Err(Status::permission_denied(format!("a witness answers nodes; this is {other}"))),
        Err(error) => Err(Status::permission_denied(error.0)),
    }
}

fn id(bytes: &[u8]) -> Option<LineageId> {
    let id = u128::from_be_bytes(bytes.try_into().ok()?);
    (id != 0).then_some(LineageId(id))
}

fn wire(record: &records::Record) -> Record {
    Record {
        lineage: record.lineage.0.to_be_bytes().to_vec(),
        owner: record.owner.clone(),
        serial: record.serial,
    }
}

fn status(error: RecordError) -> Status {
    let message = error.to_string();
    match error {
        RecordError::Fault(..) => Status::failed_precondition(message),
        RecordError::Refused(..) | RecordError::TooMany => Status::resource_exhausted(message),
    }
}
