//! Calls that concern both nodes: installing, status, commands.

use std::time::Duration;

use safe_proto::module::{
    Command, ControlModuleRequest, GetStatusRequest, InstallModuleRequest, ListModulesRequest, ModuleFiles,
    RemoveModuleRequest, State, WatchStatusRequest,
};
use tonic::Code;

use crate::host::{Host, pair};

fn db(extra: &str) -> ModuleFiles {
    let spec = format!("[module]\nname = \"db\"\nkind = \"mirror\"\nnodes = [\"n1\", \"n2\"]\n{extra}");
    ModuleFiles { spec, files: Vec::new() }
}

fn request(allow_missing: bool) -> InstallModuleRequest {
    InstallModuleRequest { module: Some(db("")), name: String::new(), allow_missing }
}

pub(crate) async fn install_db(host: &Host) {
    let answer = host.modules().await.install_module(request(false)).await.unwrap().into_inner();
    assert_eq!((answer.name.as_str(), answer.nodes.len(), answer.missing.len()), ("db", 2, 0));
}

fn command(command: Command, nodes: &[&str]) -> ControlModuleRequest {
    ControlModuleRequest {
        name: "db".to_owned(),
        command: command.into(),
        nodes: nodes.iter().map(|&node| node.to_owned()).collect(),
        ..ControlModuleRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_installed_everywhere_or_nowhere() {
    let (first, second) = pair(40).await;
    second.told.lock().refuse_prepare = true;
    let error = first.modules().await.install_module(request(false)).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains("node n2: it runs here"), "{error}");
    assert!(first.told.lock().prepared.is_empty() && first.told.lock().installed.is_empty());
    second.told.lock().refuse_prepare = false;
    install_db(&first).await;
    assert!(second.told.lock().installed.contains_key("db"));
    let list = second.modules().await.list_modules(ListModulesRequest {}).await.unwrap().into_inner();
    assert_eq!(list.modules.len(), 1);
    first.modules().await.remove_module(RemoveModuleRequest { name: "db".to_owned() }).await.unwrap();
    assert!(second.told.lock().installed.is_empty() && first.told.lock().installed.is_empty());
    first.audited("remove module db | done").await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_refuse_a_module_with_file_and_line() {
    let (first, second) = pair(41).await;
    let module = Some(db("boott = \"on\"\n"));
    let wrong = InstallModuleRequest { module, ..InstallModuleRequest::default() };
    let error = first.modules().await.install_module(wrong).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("module.toml:5") && error.message().contains("boott"), "{error}");
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_passed_on_and_status_is_merged() {
    let (first, second) = pair(42).await;
    install_db(&first).await;
    let answer =
        first.modules().await.control_module(command(Command::Start, &[])).await.unwrap().into_inner();
    assert_eq!(answer.outcomes.iter().filter(|outcome| outcome.accepted).count(), 2);
    assert_eq!(second.told.lock().commands, ["db Start"]);
    second.audited("for local uid 0").await;
    first.modules().await.control_module(command(Command::Stop, &["n2"])).await.unwrap();
    assert_eq!(second.told.lock().commands, ["db Start", "db Stop"]);
    assert_eq!(first.told.lock().commands, ["db Start"]);
    let error = first.modules().await.control_module(command(Command::Swap, &[])).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "serves nowhere: {error}");
    let error = first.modules().await.control_module(command(Command::Stop, &["n7"])).await.unwrap_err();
    assert!(error.message().contains("its nodes are n1, n2"), "{error}");

    let ask = GetStatusRequest { name: String::new(), local: false };
    let status = first.modules().await.get_status(ask.clone()).await.unwrap().into_inner().modules;
    let seen: Vec<_> = status.iter().map(|one| (one.node.as_str(), one.state())).collect();
    assert_eq!(seen, [("n1", State::Stop), ("n2", State::Stop)]);

    let watch = WatchStatusRequest { name: "db".to_owned() };
    let mut watch = first.modules().await.watch_status(watch).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().modules.len(), 2);
    second.stop().await;
    let unknown = async {
        loop {
            let answer = watch.message().await.unwrap().unwrap();
            if answer.modules[1].state() == State::Unknown {
                return answer.modules[1].reason.clone();
            }
        }
    };
    let reason = tokio::time::timeout(Duration::from_secs(10), unknown).await.unwrap();
    assert!(reason.contains("n2") || reason.contains("heartbeats"), "{reason}");
    let error = first.modules().await.control_module(command(Command::Stop, &["n2"])).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_node_is_refused_or_catches_up() {
    let (first, second) = pair(43).await;
    let second = second.pause().await;
    let error = first.modules().await.install_module(request(false)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.message().contains("--allow-missing"), "{error}");
    let answer = first.modules().await.install_module(request(true)).await.unwrap().into_inner();
    assert_eq!((answer.nodes, answer.missing), (vec!["n1".to_owned()], vec!["n2".to_owned()]));
    let mut changed = request(true);
    changed.module = Some(db("boot = \"off\"\n"));
    let newest = first.modules().await.install_module(changed).await.unwrap().into_inner().version;
    assert_ne!(newest, answer.version);
    let second = second.resume();
    second
        .until("the newest version", |told| told.installed.get("db").is_some_and(|db| db.version == newest))
        .await;
    first.stop().await;
    second.stop().await;
}
