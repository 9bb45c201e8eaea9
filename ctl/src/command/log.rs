//! `safectl log`

use clap::Args;
use safe_proto::module::ReadLogRequest;

use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure, timed_out};

/// Arguments of `log`.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Module
    module: String,
    /// Go on as lines are written
    #[arg(long, short)]
    follow: bool,
    /// Last lines to begin with
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    lines: u32,
}

/// Prints the output of a module's scripts on the node asked.
pub(crate) async fn run(context: &Context, args: LogArgs) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let request = ReadLogRequest { module: args.module, lines: args.lines, follow: args.follow };
    let mut stream = client.call(client.modules().read_log(request)).await?;
    loop {
        let message = stream.message();
        // A log that is followed may be silent for ever.
        let next = if args.follow {
            message.await
        } else {
            tokio::time::timeout(context.timeout, message).await.map_err(|_| timed_out(&client.place))?
        };
        match next.map_err(|status| client.refusal(&status))? {
            Some(response) => response.lines.iter().try_for_each(|line| context.printer.line(line))?,
            None => return Ok(Exit::Done),
        }
    }
}
