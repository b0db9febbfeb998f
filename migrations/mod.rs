//! Numbered steps from one schema of the spool to the next, applied at open.
//!
//! A leaf: steps work on raw keys and values, and each brings its own frozen record types along,
//! never today's, so that a step does for ever what it did when it was written. A step and the
//! number of the schema it leads to are applied as one batch: a crash leaves the old schema or the
//! new one.

mod step_0001;
mod step_0002;

/// Where the number of the schema stands: four bytes, big-endian, in every schema.
pub(crate) const SCHEMA_KEY: &[u8] = b"mschema";

/// The schema this program writes: the number of the last step.
pub(crate) const CURRENT: u32 = STEPS.len() as u32;

/// The steps in order; the first leads from nothing to schema 1.
const STEPS: &[Step] = &[
    Step { what: step_0001::WHAT, run: step_0001::run },
    Step { what: step_0002::WHAT, run: step_0002::run },
];

struct Step {
    /// What it does, for the log.
    what: &'static str,
    /// Reads the tree and adds what is to change to the batch.
    run: fn(&sled::Tree, &mut sled::Batch) -> Result<(), String>,
}

/// Why the spool could not be brought to today's schema. Nothing was changed by the step that
/// failed; steps before it stand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrationError {
    /// The schema is newer than this program.
    #[error("schema {0} is newer than this program")]
    Newer(u32),
    /// What stands at [`SCHEMA_KEY`] is no number.
    #[error("the number of the schema cannot be read")]
    NoNumber,
    /// A step found something it cannot deal with.
    #[error("step {step}: {why}")]
    Step {
        /// Which one.
        step: u32,
        /// Its words.
        why: String,
    },
    /// The tree failed.
    #[error(transparent)]
    Tree(#[from] sled::Error),
}

/// The schema of a spool; 0 for one that was never opened.
///
/// # Errors
/// When the tree cannot be read or what stands there is no number.
pub(crate) fn schema(tree: &sled::Tree) -> Result<u32, MigrationError> {
    match tree.get(SCHEMA_KEY)? {
        None => Ok(0),
        Some(bytes) => match <[u8; 4]>::try_from(&*bytes) {
            Ok(bytes) => Ok(u32::from_be_bytes(bytes)),
            Err(_) => Err(MigrationError::NoNumber),
        },
    }
}

/// Whether this program knows the schema of a spool.
///
/// # Errors
/// [`MigrationError::Newer`], or when the schema cannot be read.
pub(crate) fn check(tree: &sled::Tree) -> Result<u32, MigrationError> {
    match schema(tree)? {
        found if found > CURRENT => Err(MigrationError::Newer(found)),
        found => Ok(found),
    }
}

/// Applies the steps that are missing and returns how many there were. `sync` is called behind
/// each and makes it durable.
///
/// # Errors
/// [`MigrationError::Newer`] before anything is touched; else the trouble of a step.
pub(crate) fn apply<E: From<MigrationError>>(
    tree: &sled::Tree,
    sync: impl Fn() -> Result<(), E>,
) -> Result<u32, E> {
    let found = check(tree)?;
    let missing = (1_u32..).zip(STEPS).skip_while(|(number, _)| *number <= found);
    for (number, step) in missing {
        let mut batch = sled::Batch::default();
        (step.run)(tree, &mut batch).map_err(|why| MigrationError::Step { step: number, why })?;
        batch.insert(SCHEMA_KEY, &number.to_be_bytes());
        tree.apply_batch(batch).map_err(MigrationError::from)?;
        sync()?;
        tracing::info!(schema = number, what = step.what, "the spool was brought to a new schema");
    }
    Ok(CURRENT - found)
}
