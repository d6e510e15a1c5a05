//! The verbs about contexts: which clusters there are, and which one is meant. They ask no cluster.

use crate::args::{Cli, ContextVerb};
use crate::output::{Printer, say};
use crate::run::Done;
use supervisor::context::ContextFile;
use supervisor::render;

pub(crate) fn carry_out(cli: &Cli, verb: &ContextVerb) -> Done {
    let printer = Printer::new(cli);
    let file = ContextFile::load(&cli.context)?;
    match verb {
        ContextVerb::List => printer.print(&file.list(), |list| render::contexts(list, &printer.screen())),
        ContextVerb::Use { name } => {
            file.use_context(name)?;
            say(&format!("{}: {name} is the current context\n", cli.context.display()))
        }
        ContextVerb::Show { name } => {
            let shown = file.show(name.as_deref().or(cli.cluster.as_deref()))?;
            printer.print(&shown, |shown| render::context(shown, &printer.screen()))
        }
    }
}
