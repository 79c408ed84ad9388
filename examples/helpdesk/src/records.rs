//! The records: customers, orders, tickets, replies and the outbox, in SQLite. Rules that belong to
//! the business live here (no refund above what was paid); who may ask is nobody's question here.

use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use crate::{Error, held, seed};

/// Rows that one search or listing returns at most.
const ROWS_MAX: i64 = 100;

/// An order.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Order {
    pub(crate) order_id: String,
    pub(crate) customer_id: String,
    pub(crate) item: String,
    pub(crate) total_cents: i64,
    pub(crate) refunded_cents: i64,
    pub(crate) status: String,
}

/// A customer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Customer {
    customer_id: String,
    name: String,
    email: String,
    city: String,
}

/// A ticket with the replies to it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ticket {
    ticket_id: i64,
    customer_id: String,
    order_id: Option<String>,
    subject: String,
    body: String,
    replies: Vec<String>,
}

/// A mail in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Email {
    /// The recipient's address, as the caller gave it.
    pub to: String,
    /// The subject line.
    pub subject: String,
    /// The text.
    pub body: String,
}

/// What a refund came to.
#[derive(Debug)]
pub(crate) enum Refund {
    Done(Order),
    NoSuchOrder,
    AboveWhatIsLeft { left_cents: i64 },
    NotPositive,
}

/// The database, behind one connection: the sample has no load to spread.
#[derive(Clone)]
pub(crate) struct Records {
    connection: Arc<Mutex<Connection>>,
}

impl Records {
    pub(crate) fn in_memory() -> Result<Self, Error> {
        Self::prepared(Connection::open_in_memory()?)
    }

    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        Self::prepared(connection)
    }

    fn prepared(mut connection: Connection) -> Result<Self, Error> {
        connection.pragma_update(None, "foreign_keys", true)?;
        let transaction = connection.transaction()?;
        transaction.execute_batch(seed::TABLES)?;
        let seeded: bool = transaction.query_row("SELECT EXISTS (SELECT 1 FROM customers)", [], |row| row.get(0))?;
        if !seeded {
            for customer in seed::CUSTOMERS {
                transaction.execute("INSERT INTO customers VALUES (?1, ?2, ?3, ?4)", customer)?;
            }
            for order in seed::ORDERS {
                transaction.execute(
                    "INSERT INTO orders (order_id, customer_id, item, total_cents, status) VALUES (?1, ?2, ?3, ?4, ?5)",
                    order,
                )?;
            }
            for ticket in seed::TICKETS {
                transaction.execute("INSERT INTO tickets VALUES (?1, ?2, ?3, ?4, ?5)", ticket)?;
            }
        }
        transaction.commit()?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    pub(crate) fn order(&self, order_id: &str) -> Result<Option<Order>, Error> {
        Ok(find_order(&held(&self.connection), order_id)?)
    }

    /// The orders of one customer, or of all, by id.
    pub(crate) fn orders(&self, customer_id: Option<&str>) -> Result<Vec<Order>, Error> {
        let connection = held(&self.connection);
        let mut query = connection.prepare_cached(
            "SELECT order_id, customer_id, item, total_cents, refunded_cents, status FROM orders
             WHERE ?1 IS NULL OR customer_id = ?1 ORDER BY order_id LIMIT ?2",
        )?;
        let rows = query.query_map(params![customer_id, ROWS_MAX], read_order)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Refunds part of an order: never nothing, never more than is left of what was paid.
    pub(crate) fn refund(&self, order_id: &str, amount_cents: i64) -> Result<Refund, Error> {
        if amount_cents <= 0 {
            return Ok(Refund::NotPositive);
        }
        let mut connection = held(&self.connection);
        let transaction = connection.transaction()?;
        let Some(order) = find_order(&transaction, order_id)? else {
            return Ok(Refund::NoSuchOrder);
        };
        let left_cents = order.total_cents - order.refunded_cents;
        if amount_cents > left_cents {
            return Ok(Refund::AboveWhatIsLeft { left_cents });
        }
        let refunded_cents = order.refunded_cents + amount_cents;
        transaction.execute("UPDATE orders SET refunded_cents = ?2 WHERE order_id = ?1", params![order_id, refunded_cents])?;
        transaction.commit()?;
        Ok(Refund::Done(Order { refunded_cents, ..order }))
    }

    pub(crate) fn ticket(&self, ticket_id: i64) -> Result<Option<Ticket>, Error> {
        let connection = held(&self.connection);
        let ticket = connection
            .query_row(
                "SELECT ticket_id, customer_id, order_id, subject, body FROM tickets WHERE ticket_id = ?1",
                [ticket_id],
                |row| {
                    Ok(Ticket {
                        ticket_id: row.get(0)?,
                        customer_id: row.get(1)?,
                        order_id: row.get(2)?,
                        subject: row.get(3)?,
                        body: row.get(4)?,
                        replies: Vec::new(),
                    })
                },
            )
            .optional()?;
        let Some(mut ticket) = ticket else { return Ok(None) };
        let mut query = connection.prepare_cached("SELECT body FROM replies WHERE ticket_id = ?1 ORDER BY reply_id LIMIT ?2")?;
        ticket.replies = query.query_map([ticket_id, ROWS_MAX], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(Some(ticket))
    }

    /// Adds a reply; false if there is no such ticket.
    pub(crate) fn reply(&self, ticket_id: i64, body: &str) -> Result<bool, Error> {
        let added = held(&self.connection).execute(
            "INSERT INTO replies (ticket_id, body) SELECT ticket_id, ?2 FROM tickets WHERE ticket_id = ?1",
            params![ticket_id, body],
        )?;
        Ok(added == 1)
    }

    pub(crate) fn send_email(&self, email: &Email) -> Result<(), Error> {
        held(&self.connection).execute(
            "INSERT INTO emails (recipient, subject, body) VALUES (?1, ?2, ?3)",
            params![email.to, email.subject, email.body],
        )?;
        Ok(())
    }

    pub(crate) fn emails(&self) -> Result<Vec<Email>, Error> {
        let connection = held(&self.connection);
        let mut query = connection.prepare_cached("SELECT recipient, subject, body FROM emails ORDER BY email_id")?;
        let rows = query.query_map([], |row| Ok(Email { to: row.get(0)?, subject: row.get(1)?, body: row.get(2)? }))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Customers whose name, email or city contains the text; an empty text finds all.
    pub(crate) fn customers(&self, containing: &str) -> Result<Vec<Customer>, Error> {
        let connection = held(&self.connection);
        // instr() takes the text as it is: no pattern characters to escape.
        let mut query = connection.prepare_cached(
            "SELECT customer_id, name, email, city FROM customers
             WHERE instr(lower(name || ' ' || email || ' ' || city), lower(?1)) > 0
             ORDER BY customer_id LIMIT ?2",
        )?;
        let rows = query.query_map(params![containing, ROWS_MAX], |row| {
            Ok(Customer { customer_id: row.get(0)?, name: row.get(1)?, email: row.get(2)?, city: row.get(3)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn find_order(connection: &Connection, order_id: &str) -> rusqlite::Result<Option<Order>> {
    connection
        .query_row(
            "SELECT order_id, customer_id, item, total_cents, refunded_cents, status FROM orders
             WHERE order_id = ?1",
            [order_id],
            read_order,
        )
        .optional()
}

fn read_order(row: &Row<'_>) -> rusqlite::Result<Order> {
    Ok(Order {
        order_id: row.get(0)?,
        customer_id: row.get(1)?,
        item: row.get(2)?,
        total_cents: row.get(3)?,
        refunded_cents: row.get(4)?,
        status: row.get(5)?,
    })
}
