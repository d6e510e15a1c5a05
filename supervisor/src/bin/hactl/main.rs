//! The command line: asks the cluster and orders it.
//!
//! Why it exists: it is what an operator has at three in the morning. What it never does: hold a rule of the cluster;
//! it reads arguments and files, calls the API and prints the answer.

mod args;
mod bundle;
mod confirm;
mod console;
mod contexts;
mod feed;
mod live;
mod openstack;
mod output;
mod policy;
mod replay;
mod run;
#[cfg(test)]
mod schema;
mod spare;
mod until;
mod wait;
mod watching;

use args::{Cli, PolicyVerb, Verb};
use clap::{CommandFactory, Parser};
use run::{Failure, Session};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Verb::Completion { shell } = &cli.verb {
        clap_complete::generate(*shell, &mut Cli::command(), "hactl", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    if let Verb::Man { dir } = &cli.verb {
        let written = clap_mangen::generate_to(Cli::command(), dir);
        let failed = |error| Failure::local(&format!("write manual pages into {}", dir.display()), &error);
        return ended(written.map(|()| ExitCode::SUCCESS).map_err(failed));
    }
    // A document can be read without a cluster.
    if let Verb::Policy(PolicyVerb::Lint { file: Some(file) }) = &cli.verb {
        return ended(policy::lint(file));
    }
    if let Verb::Context(verb) = &cli.verb {
        return ended(contexts::carry_out(&cli, verb));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(async { Session::open(&cli)?.carry_out(cli.verb).await }),
        Err(error) => Err(Failure::local("start the async runtime", &error)),
    };
    ended(done)
}

fn ended(done: Result<ExitCode, Failure>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(failure) => {
            let code = failure.exit_code();
            // If even standard error is gone, nobody is left to tell; the exit code still says it.
            writeln!(std::io::stderr(), "{failure}").map_or(code, |()| code)
        }
    }
}
