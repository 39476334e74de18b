//! A request of prepull as the program on a node reads it: for all that stand in for that program, in tests and benches.

#![allow(dead_code)] // each of them needs its part

/// Ends the program; the values follow.
pub const GO: &str = "\n#go\n";

/// What the program is asked.
#[derive(Debug)]
pub struct Request<'a> {
    pub nonce: &'a str,
    pub action: &'a str,
    pub commands: Vec<Command<'a>>,
}

/// One of the commands that the program is to run.
#[derive(Debug)]
pub struct Command<'a> {
    pub argv: Vec<&'a str>,
    pub delivery: &'a str,
    pub secret: &'a str,
}

impl<'a> Request<'a> {
    /// Reads what follows the program: the request, and what came after it. `None` while bytes are missing; panics on
    /// what is no request.
    pub fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut values = Values(bytes);
        let (nonce, action) = (values.text()?, values.text()?);
        let _limits = (values.number()?, values.number()?);
        let _turn = values.text()?;
        let _lease = (values.number()?, values.number()?);
        let _may_use_disk = values.text()?;
        let _naming = values.text()?;
        if action.starts_with("pull-") {
            let _limits = (values.text()?, values.text()?, values.text()?);
        }
        let commands = (0..values.number()?).map(|_| values.command());
        let commands = commands.collect::<Option<_>>()?;
        let request = Self {
            nonce,
            action,
            commands,
        };
        Some((request, values.0))
    }
}

/// Values as they travel: the number of lines, then the lines.
struct Values<'a>(&'a [u8]);

impl<'a> Values<'a> {
    fn line(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|&byte| byte == b'\n')?;
        let line = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(line)
    }

    fn text(&mut self) -> Option<&'a str> {
        let lines = std::str::from_utf8(self.line()?).unwrap().parse().unwrap();
        let (all, mut size) = (self.0, 0);
        for _ in 0usize..lines {
            size += self.line()?.len() + 1;
        }
        Some(std::str::from_utf8(&all[..size - 1]).unwrap())
    }

    fn number(&mut self) -> Option<usize> {
        Some(self.text()?.parse().unwrap())
    }

    fn command(&mut self) -> Option<Command<'a>> {
        let words = self.number()?;
        let argv = (0..words).map(|_| self.text()).collect::<Option<_>>()?;
        for _environment in 0..self.number()? {
            self.text()?;
        }
        let delivery = self.text()?;
        assert!(["none", "directory", "environment", "input"].contains(&delivery));
        let (_variable, _file) = (self.text()?, self.text()?);
        let secret = self.text()?;
        let _input = self.text()?;
        Some(Command {
            argv,
            delivery,
            secret,
        })
    }
}
