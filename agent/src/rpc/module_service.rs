//! ModuleService: modules, their state, and commands.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use safe_proto::module::module_service_server::ModuleService;
use safe_proto::module::{
    ControlModuleRequest, ControlModuleResponse, DiscardConflictRequest, DiscardConflictResponse,
    ExplainModuleRequest, ExplainModuleResponse, GetStatusRequest, GetStatusResponse, InstallModuleRequest,
    InstallModuleResponse, ListConflictsRequest, ListConflictsResponse, ListEventsRequest,
    ListEventsResponse, ListModulesRequest, ListModulesResponse, ListRulesRequest, ListRulesResponse,
    ModuleStatus, ReadLogRequest, ReadLogResponse, RemoveModuleRequest, RemoveModuleResponse,
    RestoreConflictRequest, SetResourceRequest, SetResourceResponse, ShowConflictRequest,
    ShowConflictResponse, ValidateModuleRequest, ValidateModuleResponse, WatchStatusRequest,
    WatchStatusResponse,
};
use safe_proto::spec::ModuleSpec;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::node_service::caller;
use super::{conflicts, control, install, refuse, remove, rules, status, validate};
use crate::log;

/// Between two answers of a watch.
const AT_MOST: Duration = Duration::from_millis(100);
/// Between two looks at the other nodes.
const LOOK: Duration = Duration::from_millis(500);
/// An answer although nothing changed.
const AT_LEAST: Duration = Duration::from_secs(2);
/// Answers that may wait for a slow client.
const QUEUE: usize = 4;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub(super) struct Desk(pub(super) Arc<super::Desk>);

#[tonic::async_trait]
impl ModuleService for Desk {
    type WatchStatusStream = Answers<WatchStatusResponse>;
    type ReadLogStream = Answers<ReadLogResponse>;
    type RestoreConflictStream = conflicts::Restoring;

    async fn validate_module(
        &self,
        request: Request<ValidateModuleRequest>,
    ) -> Result<Response<ValidateModuleResponse>, Status> {
        let ValidateModuleRequest { module, name } = request.into_inner();
        validate::content(module.as_ref(), &name)?;
        let (findings, _) = install::judge(&self.0, &name, module.unwrap_or_default(), true).await?;
        let findings = findings.into_iter().map(Into::into).collect();
        Ok(Response::new(ValidateModuleResponse { findings }))
    }

    async fn install_module(
        &self,
        request: Request<InstallModuleRequest>,
    ) -> Result<Response<InstallModuleResponse>, Status> {
        let (caller, desk, request) = (caller(&request), Arc::clone(&self.0), request.into_inner());
        let work = async move {
            let asked = asked_name(&request);
            let outcome = install::install(&desk, request).await;
            let name = outcome.as_ref().map_or(asked.as_str(), |answer| answer.name.as_str());
            desk.audit(&caller, &format!("install module {name:.63}"), &outcome);
            outcome
        };
        super::whole(work).await.map(Response::new)
    }

    async fn list_modules(
        &self,
        _: Request<ListModulesRequest>,
    ) -> Result<Response<ListModulesResponse>, Status> {
        let modules = self.0.context.node.list().await.map_err(refuse)?;
        Ok(Response::new(ListModulesResponse { modules }))
    }

    async fn remove_module(
        &self,
        request: Request<RemoveModuleRequest>,
    ) -> Result<Response<RemoveModuleResponse>, Status> {
        let (caller, desk, name) = (caller(&request), Arc::clone(&self.0), request.into_inner().name);
        let work = async move {
            let outcome = remove::remove(&desk, &name).await;
            desk.audit(&caller, &format!("remove module {name:.63}"), &outcome);
            outcome
        };
        super::whole(work).await.map(|()| Response::new(RemoveModuleResponse {}))
    }

    async fn control_module(
        &self,
        request: Request<ControlModuleRequest>,
    ) -> Result<Response<ControlModuleResponse>, Status> {
        let (caller, desk, request) = (caller(&request), Arc::clone(&self.0), request.into_inner());
        let work = async move {
            let what = words(&request);
            let outcome = control::control(&desk, &caller, request).await;
            desk.audit(&caller, &what, &outcome);
            outcome
        };
        super::whole(work).await.map(Response::new)
    }

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let GetStatusRequest { name, local } = request.into_inner();
        validate::module_or_all(&name)?;
        let answer =
            if local { status::local(&self.0, &name) } else { status::everywhere(&self.0, &name).await };
        answer.map(Response::new)
    }

    async fn watch_status(
        &self,
        request: Request<WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let name = request.into_inner().name;
        validate::module_or_all(&name)?;
        // Also an unknown module is an error now, not in the middle of the stream.
        let first = status::everywhere(&self.0, &name).await?;
        let (answers, stream) = mpsc::channel(QUEUE);
        tokio::spawn(watch(Arc::clone(&self.0), name, first.modules, answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        let request = request.into_inner();
        let limit = validate::events(&request)?;
        let events = self.0.context.events.clone();
        let events =
            super::blocking(move || Ok(events.list(&request.module, request.since_ms, limit))).await?;
        Ok(Response::new(ListEventsResponse { events }))
    }

    async fn list_rules(
        &self,
        request: Request<ListRulesRequest>,
    ) -> Result<Response<ListRulesResponse>, Status> {
        rules::list(&self.0, &request.into_inner().module).await.map(Response::new)
    }

    async fn set_resource(
        &self,
        request: Request<SetResourceRequest>,
    ) -> Result<Response<SetResourceResponse>, Status> {
        let (caller, request) = (caller(&request), request.into_inner());
        let outcome = rules::set(&self.0, &request).await;
        let value = if request.up { "up" } else { "down" };
        let what =
            format!("set {value} a resource of module {:.63}: {:.128}", request.module, request.resource);
        self.0.audit(&caller, &what, &outcome);
        outcome.map(|()| Response::new(SetResourceResponse {}))
    }

    async fn explain_module(
        &self,
        request: Request<ExplainModuleRequest>,
    ) -> Result<Response<ExplainModuleResponse>, Status> {
        rules::explain(&self.0, &request.into_inner().module).await.map(Response::new)
    }

    async fn read_log(
        &self,
        request: Request<ReadLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        let request = request.into_inner();
        let lines = validate::log(&request)?;
        status::local(&self.0, &request.module)?;
        let path = self.0.context.paths.module(&request.module).log();
        let reader = super::blocking(move || {
            log::Reader::open(&path, lines)
                .map_err(|error| Status::internal(format!("the log cannot be read: {error}")))
        })
        .await?;
        let (answers, stream) = mpsc::channel(QUEUE);
        tokio::spawn(read(reader, request.follow, answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_conflicts(
        &self,
        request: Request<ListConflictsRequest>,
    ) -> Result<Response<ListConflictsResponse>, Status> {
        conflicts::list(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn show_conflict(
        &self,
        request: Request<ShowConflictRequest>,
    ) -> Result<Response<ShowConflictResponse>, Status> {
        conflicts::show(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn restore_conflict(
        &self,
        request: Request<RestoreConflictRequest>,
    ) -> Result<Response<Self::RestoreConflictStream>, Status> {
        let (caller, request) = (caller(&request), request.into_inner());
        let what = format!(
            "restore archive {:.32} of module {:.63} on [{:.63}] to {:.200}",
            request.id, request.module, request.node, request.directory
        );
        let outcome = conflicts::restore(&self.0, &caller, request).await;
        self.0.audit(&caller, &what, &outcome);
        outcome.map(Response::new)
    }

    async fn discard_conflict(
        &self,
        request: Request<DiscardConflictRequest>,
    ) -> Result<Response<DiscardConflictResponse>, Status> {
        let (caller, desk, request) = (caller(&request), Arc::clone(&self.0), request.into_inner());
        let work = async move {
            let what = format!(
                "discard archive {:.32} of module {:.63} on [{:.63}]",
                request.id, request.module, request.node
            );
            let outcome = conflicts::discard(&desk, &caller, request).await;
            desk.audit(&caller, &what, &outcome);
            outcome
        };
        super::whole(work).await.map(Response::new)
    }
}

/// The name a module is to be installed under, as far as it can be read: a refusal is audited, too.
fn asked_name(request: &InstallModuleRequest) -> String {
    if !request.name.is_empty() {
        return request.name.clone();
    }
    let spec = request.module.as_ref().map_or("", |module| module.spec.as_str());
    ModuleSpec::parse(spec).map_or_else(|_| "without a readable name".to_owned(), |spec| spec.module.name)
}

/// A command as the audit log tells it.
fn words(request: &ControlModuleRequest) -> String {
    let flags: String = control::flags(request).map(|flag| format!(" {flag}")).collect();
    let command = control::word(request.command());
    format!("{command} {:.63} on [{:.200}]{flags}", request.name, request.nodes.join(","))
}

async fn read(mut reader: log::Reader, follow: bool, answers: mpsc::Sender<Result<ReadLogResponse, Status>>) {
    loop {
        let next = tokio::select! {
            next = reader.next(follow) => next,
            () = answers.closed() => return,
        };
        let answer = match next {
            Ok(Some(lines)) => Ok(ReadLogResponse { lines }),
            Ok(None) => return,
            Err(error) => Err(Status::internal(format!("the log cannot be read: {error}"))),
        };
        let last = answer.is_err();
        if answers.send(answer).await.is_err() || last {
            return;
        }
    }
}

/// Sends what changed, and something every 2 s, until the client is gone.
async fn watch(
    desk: Arc<super::Desk>,
    name: String,
    mut modules: Vec<ModuleStatus>,
    answers: mpsc::Sender<Result<WatchStatusResponse, Status>>,
) {
    let mut own = desk.context.node.statuses();
    loop {
        own.borrow_and_update();
        let sent = Instant::now();
        if answers.send(Ok(WatchStatusResponse { modules: modules.clone() })).await.is_err() {
            return;
        }
        sleep_until(sent + AT_MOST).await;
        loop {
            let look = (Instant::now() + LOOK).min(sent + AT_LEAST);
            tokio::select! {
                // A change here, or time to look at the other nodes.
                _ = timeout_at(look, own.changed()) => {}
                () = answers.closed() => return,
                () = desk.context.shutdown.cancelled() => return,
            }
            let fresh = match status::everywhere(&desk, &name).await {
                Ok(answer) => answer.modules,
                Err(status) => {
                    drop(answers.send(Err(status)).await);
                    return;
                }
            };
            let changed = !same(&fresh, &modules);
            modules = fresh;
            if changed || Instant::now() >= sent + AT_LEAST {
                break;
            }
        }
    }
}

/// Equal but for the time at which it was true.
fn same(a: &[ModuleStatus], b: &[ModuleStatus]) -> bool {
    let timeless = |status: &ModuleStatus| ModuleStatus { as_of_ms: 0, ..status.clone() };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| timeless(a) == timeless(b))
}
