//! The way to the witnesses: one connection for all modules, kept warm, and a second one at once where the first is slow.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use safe_failover::lineage::LineageId;
use safe_proto::witness::witness_service_client::WitnessServiceClient;
use safe_proto::witness::{ReadRecordRequest, SwapRecordRequest};
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::host::{Host, is_own};
use super::lock::{Lock, Record, Swap};
use crate::node::Membership;
use crate::peer::dial;
use crate::pki::Credentials;
use crate::settings_store::unhex;

/// Part of the time after which a connection that says nothing is not trusted alone any more.
const SLOW: u32 = 3;

/// All witnesses that modules of this node name; cheap to clone.
#[derive(Debug, Clone)]
pub struct Witnesses {
    membership: watch::Receiver<Option<Arc<Membership>>>,
    known: Arc<Mutex<BTreeMap<String, Arc<Witness>>>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Witness {
    target: String,
    host: Host,
    port: u16,
    membership: watch::Receiver<Option<Arc<Membership>>>,
    warm: Mutex<Warm>,
}

/// A connection that answered last.
#[derive(Debug, Default)]
struct Warm {
    channel: Option<Channel>,
    /// Raised with each new one.
    number: u64,
}

impl Witnesses {
    /// None yet.
    #[must_use]
    pub fn new(membership: watch::Receiver<Option<Arc<Membership>>>) -> Self {
        Self { membership, known: Arc::default() }
    }

    /// The one at this target; modules that name the same share it.
    pub(super) fn at(&self, target: &str) -> Arc<Witness> {
        let mut known = self.known.lock();
        // Those that no module names any more.
        known.retain(|name, witness| name == target || Arc::strong_count(witness) > 1);
        let new = || {
            let (host, port) = target.rsplit_once(':').unwrap_or((target, ""));
            Arc::new(Witness {
                target: target.to_owned(),
                host: Host::new(host),
                port: port.parse().unwrap_or(crate::witness::PORT),
                membership: self.membership.clone(),
                warm: Mutex::default(),
            })
        };
        Arc::clone(known.entry(target.to_owned()).or_insert_with(new))
    }
}

impl Witness {
    /// One call, whose request is `ask`: over the warm connection, over a new one if that fails or is slow.
    async fn call<T, F>(&self, patience: Duration, ask: impl Fn(Channel) -> F) -> Result<T, String>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let asked = async {
            let (warm, number) = {
                let warm = self.warm.lock();
                (warm.channel.clone(), warm.number)
            };
            let Some(channel) = warm else { return self.anew(patience, &ask).await };
            let mut call = pin!(ask(channel));
            let early = tokio::time::timeout(patience / SLOW, &mut call).await;
            match early {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) if is_word(&status) => return Err(status),
                Ok(Err(_)) => self.cool(number),
                Err(_) => {
                    let late = async {
                        match call.await {
                            Err(status) if !is_word(&status) => None,
                            answer => Some(answer),
                        }
                    };
                    tokio::select! {
                        Some(answer) = late => return answer,
                        answer = self.anew(patience, &ask) => return answer,
                    }
                }
            }
            self.anew(patience, &ask).await
        };
        match tokio::time::timeout(patience, asked).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err(format!("no answer within {} ms", patience.as_millis())),
        }
    }

    async fn anew<T, F>(&self, patience: Duration, ask: &impl Fn(Channel) -> F) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let channel = self.connect(patience).await.map_err(Status::unavailable)?;
        let answer = ask(channel.clone()).await;
        if answer.is_ok() {
            let mut warm = self.warm.lock();
            warm.number += 1;
            warm.channel = Some(channel);
        }
        answer
    }

    /// Forgets the warm connection, unless it has been replaced.
    fn cool(&self, number: u64) {
        let mut warm = self.warm.lock();
        if warm.number == number {
            warm.channel = None;
        }
    }

    async fn connect(&self, patience: Duration) -> Result<Channel, String> {
        let membership = self.membership.borrow().clone().ok_or("this node belongs to no cluster")?;
        let known = membership.witnesses.iter().find(|known| known.target == self.target);
        let known = known.ok_or_else(|| {
            format!("the cluster does not know the witness {}: safectl witness add TOKEN", self.target)
        })?;
        let ca = unhex(&known.ca).ok_or("its fingerprint in the cluster settings is not readable")?;
        let Membership { cluster, ca: own, certificate, key, .. } = &*membership;
        let config = Credentials::new(cluster, own, certificate, key)
            .and_then(|credentials| credentials.towards_witness(&known.name, ca))
            .map_err(|error| error.0)?;
        let config = Arc::new(config);
        // At a loss the name service may be as far away as the other node.
        if patience >= super::PATIENCE || self.host.addresses().is_err() {
            self.host.resolve(patience / SLOW).await;
        }
        let mut why = String::new();
        for ip in self.host.addresses()? {
            if is_own(ip) {
                why = format!("{ip} is an address of this machine: a witness is a third one");
                continue;
            }
            let address = SocketAddr::new(ip, self.port);
            match dial::connect(address, None, Arc::clone(&config), patience).await {
                Ok(stream) => return dial::channel_over(stream).await.map_err(|error| error.to_string()),
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }
}

/// The witness's own words, which another connection would not change.
fn is_word(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition | Code::ResourceExhausted | Code::PermissionDenied | Code::InvalidArgument
    )
}

#[tonic::async_trait]
impl Lock for Witness {
    async fn read(&self, module: &str, patience: Duration) -> Result<Option<Record>, String> {
        let module = module.to_owned();
        let ask = move |channel| {
            let request = timed(ReadRecordRequest { module: module.clone() }, patience);
            async move { WitnessServiceClient::new(channel).read_record(request).await }
        };
        self.call(patience, ask).await?.record.map(record).transpose()
    }

    async fn swap(
        &self,
        module: &str,
        expect: Option<LineageId>,
        new: LineageId,
        patience: Duration,
    ) -> Result<Swap, String> {
        let bytes = |id: LineageId| id.0.to_be_bytes().to_vec();
        let swap = SwapRecordRequest {
            module: module.to_owned(),
            expect: expect.map(bytes).unwrap_or_default(),
            lineage: bytes(new),
        };
        let ask = move |channel| {
            let request = timed(swap.clone(), patience);
            async move { WitnessServiceClient::new(channel).swap_record(request).await }
        };
        let answer = self.call(patience, ask).await?;
        let record = answer.record.map(record).transpose()?;
        if answer.swapped {
            // One that says yes to anything would let both serve.
            let right = record.is_some_and(|record| record.lineage == new);
            return if right { Ok(Swap::Done) } else { Err("its answer makes no sense".to_owned()) };
        }
        Ok(Swap::Refused(record))
    }
}

fn timed<T>(message: T, patience: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(patience);
    request
}

fn record(wire: safe_proto::witness::Record) -> Result<Record, String> {
    let id = wire.lineage.as_slice().try_into().map(u128::from_be_bytes).ok().filter(|id| *id != 0);
    let id = id.ok_or("its answer makes no sense: a lineage of a wrong length")?;
    let owner = wire.owner.chars().take(63).collect();
    Ok(Record { lineage: LineageId(id), owner })
}
