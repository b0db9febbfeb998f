//! Prints every change of the status table.

use std::sync::Arc;

use postrider::spi::StatusRow;
use postrider::spooler::{StatusChange, StatusTable};

/// Prints the table and each change of it until the task is aborted.
pub(crate) async fn print_changes(table: Arc<StatusTable>) {
    let mut subscription = table.subscribe();
    loop {
        match subscription.changed().await {
            StatusChange::Table(rows) => rows.iter().for_each(print_row),
            StatusChange::Row(row) => print_row(&row),
            StatusChange::Gone(row) => println!("status    row {row} is gone"),
        }
    }
}

fn print_row(row: &StatusRow) {
    let names = row.status_code.names();
    let flags: Vec<&str> = names.iter().map(|name| name.trim_start_matches("STATUS_")).collect();
    println!("status    {:<8} {}: {}", row.display_name, flags.join(" "), row.status_string);
}
