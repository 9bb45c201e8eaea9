//! `safectl module`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use safe_proto::module::{
    InstallModuleRequest, ListModulesRequest, ModuleFiles, ModuleInfo, RemoveModuleRequest,
    ValidateModuleRequest,
};
use safe_proto::spec::{FILE, Finding, Kind, ModuleSpec, Surroundings, files, label};
use serde::Serialize;

use crate::client::Client;
use crate::context::Context;
use crate::directory;
use crate::error::{Exit, Failure};
use crate::output::{self, Cell, Table};

/// Digits of a version that people see.
const SHORT_VERSION: usize = 12;

/// Commands about modules.
#[derive(Debug, Subcommand)]
pub(crate) enum ModuleCommand {
    /// Check a module's directory; asks safed too, if it runs
    Validate(ValidateArgs),
    /// Install a module on all its nodes
    Install(InstallArgs),
    /// Installed modules
    List,
    /// Remove a stopped module from all its nodes; its data stay
    Remove(RemoveArgs),
}

/// Arguments of `module validate`.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// Directory with module.toml and scripts
    directory: PathBuf,
    /// Name to use instead of the one in module.toml
    #[arg(long, value_parser = module_name)]
    name: Option<String>,
}

/// Arguments of `module install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    module: ValidateArgs,
    /// Install although a node does not answer; it catches up when it returns
    #[arg(long)]
    allow_missing: bool,
}

/// Arguments of `module remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Module
    name: String,
}

/// Runs one.
pub(crate) async fn run(context: &Context, command: ModuleCommand) -> Result<Exit, Failure> {
    match command {
        ModuleCommand::Validate(args) => validate(context, args).await,
        ModuleCommand::Install(args) => install(context, args).await,
        ModuleCommand::List => list(context).await,
        ModuleCommand::Remove(args) => remove(context, args).await,
    }
}

/// The documented JSON of a finding.
#[derive(Debug, Serialize)]
struct FindingView {
    severity: &'static str,
    file: String,
    line: u32,
    message: String,
}

impl From<&Finding> for FindingView {
    fn from(finding: &Finding) -> Self {
        Self {
            severity: if finding.error { "error" } else { "warning" },
            file: finding.file.clone(),
            line: finding.line,
            message: finding.message.clone(),
        }
    }
}

/// The documented JSON of `module validate`.
#[derive(Debug, Serialize)]
struct Validation {
    valid: bool,
    /// The safed was asked, too: names of nodes and lans and other modules are known.
    asked: bool,
    findings: Vec<FindingView>,
}

async fn validate(context: &Context, args: ValidateArgs) -> Result<Exit, Failure> {
    let module = directory::read(&args.directory)?;
    let mut findings = check_here(context, &module, args.name.as_deref());
    let asked = match ask(context, module, args.name.unwrap_or_default()).await {
        Ok(more) => {
            let new: Vec<Finding> = more.into_iter().filter(|finding| !findings.contains(finding)).collect();
            findings.extend(new);
            in_order(&mut findings);
            true
        }
        Err(failure) => {
            let why = failure.cause.as_ref().unwrap_or(&failure.message);
            output::note(&format!(
                "checked without safed ({why}): names of nodes and lans, and other modules, are not known"
            ));
            false
        }
    };
    let valid = !findings.iter().any(|finding| finding.error);
    let view = Validation { valid, asked, findings: findings.iter().map(FindingView::from).collect() };
    let mut lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    lines.push(format!("{} is {}", args.directory.display(), if valid { "valid" } else { "not valid" }));
    context.printer.text(&view, &lines.join("\n"))?;
    Ok(if valid { Exit::Done } else { Exit::Condition })
}

async fn ask(context: &Context, module: ModuleFiles, name: String) -> Result<Vec<Finding>, Failure> {
    let client = Client::connect(context).await?;
    let request = ValidateModuleRequest { module: Some(module), name };
    let answer = client.call(client.modules().validate_module(request)).await?;
    Ok(answer.findings.into_iter().map(Finding::from).collect())
}

/// All that can be said without a `safed`.
fn check_here(context: &Context, module: &ModuleFiles, name: Option<&str>) -> Vec<Finding> {
    let mut findings = match ModuleSpec::parse(&module.spec) {
        Ok(mut spec) => {
            if let Some(name) = name {
                name.clone_into(&mut spec.module.name);
            }
            let own_paths = context.paths.own();
            spec.validate(Surroundings { own_paths: &own_paths, ..Surroundings::default() })
        }
        Err(findings) => findings,
    };
    findings.extend(files::check(module));
    in_order(&mut findings);
    findings
}

/// By file and line, what is about the whole file last, each finding once.
fn in_order(findings: &mut Vec<Finding>) {
    findings.sort_by(|a, b| (&a.file, a.line == 0, a.line).cmp(&(&b.file, b.line == 0, b.line)));
    findings.dedup();
}

/// The documented JSON of `module install`.
#[derive(Debug, Serialize)]
struct Installed {
    name: String,
    version: String,
    nodes: Vec<String>,
    missing: Vec<String>,
    /// What a running module has taken, a line each.
    changed: Vec<String>,
    findings: Vec<FindingView>,
}

async fn install(context: &Context, args: InstallArgs) -> Result<Exit, Failure> {
    let (directory, name) = (args.module.directory, args.module.name);
    let module = directory::read(&directory)?;
    let findings = check_here(context, &module, name.as_deref());
    if findings.iter().any(|finding| finding.error) {
        tell(findings.iter());
        return Err(Failure::failed(format!("{} is not valid: nothing was installed", directory.display()))
            .hint(format!(
                "correct {FILE} or the scripts, then: safectl module validate {}",
                directory.display()
            )));
    }
    let kind = ModuleSpec::parse(&module.spec).map_or(Kind::Mirror, |spec| spec.module.kind);
    let client = Client::connect(context).await?;
    let request = InstallModuleRequest {
        module: Some(module),
        name: name.unwrap_or_default(),
        allow_missing: args.allow_missing,
    };
    let answer = client.call(client.modules().install_module(request)).await?;
    let findings: Vec<Finding> = answer.findings.into_iter().map(Finding::from).collect();
    tell(findings.iter());
    if context.is_table() {
        let short: String = answer.version.chars().take(SHORT_VERSION).collect();
        output::note(&format!(
            "{} (version {short}) is installed on {}",
            answer.name,
            answer.nodes.join(", ")
        ));
        if !answer.missing.is_empty() {
            output::note(&format!("{} will catch up on return", answer.missing.join(", ")));
        }
        if !answer.changed.is_empty() {
            output::note("in force now, while it runs:");
            answer.changed.iter().for_each(|line| output::note(&format!("  {line}")));
        } else if kind == Kind::Mirror {
            output::note(&format!("next: safectl start {}", answer.name));
        }
        return Ok(Exit::Done);
    }
    let view = Installed {
        name: answer.name,
        version: answer.version,
        nodes: answer.nodes,
        missing: answer.missing,
        changed: answer.changed,
        findings: findings.iter().map(FindingView::from).collect(),
    };
    context.printer.text(&view, "")?;
    Ok(Exit::Done)
}

fn tell<'a>(findings: impl Iterator<Item = &'a Finding>) {
    for finding in findings {
        output::note(&finding.to_string());
    }
}

/// The documented JSON of `module list`.
#[derive(Debug, Serialize)]
struct Module {
    name: String,
    kind: String,
    nodes: Vec<String>,
    version: String,
}

impl From<ModuleInfo> for Module {
    fn from(info: ModuleInfo) -> Self {
        Self { name: info.name, kind: info.kind, nodes: info.nodes, version: info.version }
    }
}

async fn list(context: &Context) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let answer = client.call(client.modules().list_modules(ListModulesRequest {})).await?;
    let modules: Vec<Module> = answer.modules.into_iter().map(Module::from).collect();
    context.printer.data(&modules, || {
        let mut table = Table::new(["MODULE", "KIND", "NODES", "VERSION"]);
        for module in &modules {
            let short: String = module.version.chars().take(SHORT_VERSION).collect();
            table.row([&module.name, &module.kind, &module.nodes.join(", "), &short].map(Cell::plain));
        }
        if modules.is_empty() {
            table.below("No module is installed. Next: safectl module install DIR");
        }
        table
    })?;
    Ok(Exit::Done)
}

async fn remove(context: &Context, args: RemoveArgs) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let request = RemoveModuleRequest { name: args.name.clone() };
    client.call(client.modules().remove_module(request)).await?;
    output::note(&format!("{} is removed; the files in its directories are as they were", args.name));
    Ok(Exit::Done)
}

fn module_name(text: &str) -> Result<String, String> {
    label::check("the module name", text).map(|()| text.to_owned())
}
