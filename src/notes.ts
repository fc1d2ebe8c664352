/** What is noted on objects, for the one who made it alone. */
export interface Notes<On extends object, Note> {
  get(on: On): Note | undefined
  set(on: On, note: Note): void
}

/** Constructs what it is given, so that a class that extends it adds its private fields to that. */
class Itself {
  constructor(on: object) {
    // oxlint-disable-next-line no-constructor-return -- that is what it is for
    return on
  }
}

/**
 * Makes notes on objects that live short, such as requests: what a `WeakMap` does, by a private field of the object. Nobody else can
 * read, list or change it. Each entry of a `WeakMap` is looked at by every collection of garbage.
 */
export function createNotes<On extends object, Note>(): Notes<On, Note> {
  return class Noted extends Itself {
    #note: Note

    private constructor(on: object, note: Note) {
      super(on)
      this.#note = note
    }

    static get(on: object): Note | undefined {
      return #note in on ? on.#note : undefined
    }

    static set(on: object, note: Note): void {
      if (#note in on) on.#note = note
      else void new Noted(on, note)
    }
  }
}
