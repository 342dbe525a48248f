# Ruby: sqlite3 and pg. Argument: the SQLite file, or none for the PG… of the environment. See ../drivers.py.
require "json"

Blob = Struct.new(:bytes)

class Sqlite
  def initialize(path)
    require "sqlite3"
    @db = SQLite3::Database.new(path)
  end

  def word(step)
    @db.execute({ "begin" => "BEGIN IMMEDIATE" }.fetch(step, step))
  end

  def run(sql, values)
    @db.execute(sql, values.map { |each| each.is_a?(Blob) ? SQLite3::Blob.new(each.bytes) : each })
  end
end

class Postgres
  def initialize
    require "pg"
    @db = PG.connect
  end

  def word(step)
    @db.exec(step)
  end

  def run(sql, values)
    number = 0
    text = sql.gsub("?") { "$#{number += 1}" }
    given = values.map { |each| each.is_a?(Blob) ? { value: each.bytes, format: 1 } : each }
    @db.exec_params(text, given).values
  end
end

db = ARGV.empty? ? Postgres.new : Sqlite.new(ARGV[0])
done = lambda do |step|
  if step.is_a?(String)
    db.word(step)
    next { rows: [] }
  end
  values = step["with"].map { |each| each.is_a?(Hash) ? Blob.new([each["hex"]].pack("H*")) : each }
  { rows: db.run(step["run"], values) }
rescue StandardError => error
  { refused: error.message }
end

cases = JSON.parse($stdin.read.force_encoding("UTF-8"))
puts JSON.generate(cases.map { |steps| steps.map(&done) })
