;;; dg-lsp-connection.el --- A connection beside other language servers  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; Eglot has one server for a buffer.  So that dg-lsp can stand beside it, or
;; beside lsp-mode, or alone, this keeps a connection of its own for each
;; project, and tells it of the buffers that are attached.

;;; Code:

(require 'cl-lib)
(require 'project)
(require 'url-util)
(require 'dg-lsp-server)

(defconst dg-lsp-connection--patience 3
  "Seconds that a server must have lived to be started again when it dies.
For so long it also waits for another buffer when the last has gone.")

(defconst dg-lsp-connection--hooks
  '((before-change-functions . dg-lsp-connection--check)
    (after-change-functions . dg-lsp-connection--note)
    (after-set-visited-file-name-hook . dg-lsp-connection-attach)
    (change-major-mode-hook . dg-lsp-connection-detach)
    (kill-buffer-hook . dg-lsp-connection-detach))
  "What is called in an attached buffer, and by which hook.")

(defconst dg-lsp-connection--no-events
  (if (boundp 'jsonrpc-event-hook)
      '(:events-buffer-config (:size 0))
    '(:events-buffer-scrollback-size 0))
  "What makes jsonrpc, from Emacs 30 on or before, write no messages down.
That would take longer than all the rest.")

;; In this order Emacs 28 initialises it as a process.
(defclass dg-lsp-connection (jsonrpc-process-connection dg-lsp-server)
  ((root :initarg :root :accessor dg-lsp-connection-root
         :documentation "The directory of the project.")
   (born :initform (float-time) :accessor dg-lsp-connection-born
         :documentation "When it was made.")
   (ready :initform nil :accessor dg-lsp-connection-ready
          :documentation "Non-nil once the server has introduced itself."))
  "A connection of our own to dg-lsp.")

(cl-defstruct (dg-lsp-connection--document
               (:constructor dg-lsp-connection--make-document)
               (:conc-name dg-lsp-connection--document-))
  "What CONNECTION knows of BUFFER as URI.
That is the text of TICK, under the number VERSION, with so many NEWLINES.
HEAD and TAIL are how much at both ends is still the same, by all
changes up to the tick NOTED; nil if there were others."
  connection buffer uri (version 0) tick newlines head tail noted)

(defvar-local dg-lsp-connection--document nil
  "What the server knows of this buffer, or nil if it is not attached.")

(defvar dg-lsp-connection--all nil
  "The connections that are up, one for each project.")

(defun dg-lsp-connection--own ()
  "Return what the server knows of this buffer, or nil.
A clone has a copy of all local variables, but is not attached."
  (and dg-lsp-connection--document
       (eq (dg-lsp-connection--document-buffer dg-lsp-connection--document)
           (current-buffer))
       dg-lsp-connection--document))

(defun dg-lsp-connection-current ()
  "Return the connection that knows this buffer, or nil."
  (when-let* ((document (dg-lsp-connection--own))
              (connection (dg-lsp-connection--document-connection document)))
    (and (dg-lsp-connection-ready connection) connection)))

(add-hook 'dg-lsp-server-functions #'dg-lsp-connection-current t)

;;;; Life

(defun dg-lsp-connection--for (root)
  "Return the connection for the project at ROOT, a new one if need be."
  (or (cl-find-if (lambda (connection)
                    (and (equal (dg-lsp-connection-root connection) root)
                         (jsonrpc-running-p connection)))
                  dg-lsp-connection--all)
      (dg-lsp-connection--start root)))

(defun dg-lsp-connection--start (root)
  "Start a server for the project at ROOT, and return the connection."
  (let* ((default-directory root)
         (name (format "dg-lsp %s" (abbreviate-file-name root)))
         (connection
          (apply
           #'make-instance 'dg-lsp-connection :name name :root root
           :process (lambda ()
                      (make-process
                       :name name :command dg-lsp-command :noquery t
                       :connection-type 'pipe :coding 'utf-8-emacs-unix
                       :stderr (get-buffer-create (format " *%s stderr*" name))))
           :notification-dispatcher
           (lambda (connection method params)
             (apply #'dg-lsp-server-hear connection method (append params nil)))
           :request-dispatcher #'dg-lsp-connection--reply
           :on-shutdown #'dg-lsp-connection--on-shutdown
           dg-lsp-connection--no-events)))
    (push connection dg-lsp-connection--all)
    (dg-lsp-connection--introduce connection)
    connection))

(defun dg-lsp-connection--introduce (connection)
  "Shake hands with the server of CONNECTION, then tell it of its buffers."
  (let ((uri (dg-lsp-connection--file-uri (dg-lsp-connection-root connection))))
    (dg-lsp-server-send
     connection :initialize
     (list :processId (emacs-pid)
           :clientInfo (list :name "Emacs" :version emacs-version)
           :rootUri uri
           :workspaceFolders (vector (list :uri uri :name uri))
           :initializationOptions (dg-lsp-server-settings)
           :capabilities
           '(:general (:positionEncodings ["utf-32"])
             :workspace (:configuration t :workspaceFolders t)
             :textDocument (:synchronization (:dynamicRegistration :json-false)
                            :inlineCompletion (:dynamicRegistration :json-false))
             :experimental (:dg (:status t))))
     (lambda (_result)
       (jsonrpc-notify connection :initialized (make-hash-table :size 1))
       (setf (dg-lsp-connection-ready connection) t)
       (dolist (buffer (dg-lsp-connection--buffers connection))
         (with-demoted-errors "dg-lsp: %S" (dg-lsp-connection--open buffer))))
     (lambda (reason) (message "dg-lsp does not start: %s" reason)))))

(defun dg-lsp-connection--reply (connection method params)
  "Answer the request METHOD with PARAMS of the server of CONNECTION."
  (pcase method
    ('workspace/configuration
     (cl-map 'vector
             (lambda (item)
               (and (equal (plist-get item :section) "dg")
                    (dg-lsp-server-settings
                     (dg-lsp-server-project-settings
                      (dg-lsp-connection-root connection)))))
             (plist-get params :items)))
    ('workspace/workspaceFolders nil)
    (_ (jsonrpc-error :code -32601 :message (format "No method %s" method)))))

(cl-defmethod dg-lsp-server-tell-settings ((connection dg-lsp-connection))
  "Let the server of CONNECTION ask for its settings again."
  (jsonrpc-notify connection :workspace/didChangeConfiguration
                  (list :settings (make-hash-table :size 1))))

(defun dg-lsp-connection--on-shutdown (connection)
  "Start the server of CONNECTION again if it had lived for long enough."
  (setq dg-lsp-connection--all (delq connection dg-lsp-connection--all))
  (let ((buffers (dg-lsp-connection--buffers connection)))
    (force-mode-line-update t)
    (when (> (- (float-time) (dg-lsp-connection-born connection))
             dg-lsp-connection--patience)
      (dolist (buffer buffers)
        (with-current-buffer buffer
          (dg-lsp-connection-attach))))))

(defun dg-lsp-connection--end-if-idle (connection)
  "End the server of CONNECTION if no buffer needs it any more."
  (unless (dg-lsp-connection--buffers connection)
    (dg-lsp-connection--end connection)))

(defun dg-lsp-connection--end (connection)
  "End the server of CONNECTION."
  (setq dg-lsp-connection--all (delq connection dg-lsp-connection--all))
  (when (jsonrpc-running-p connection)
    (dg-lsp-server-send connection :shutdown nil
                        (lambda (_result)
                          (jsonrpc-notify connection :exit nil)))
    ;; One that hangs does not answer.
    (run-with-timer dg-lsp-connection--patience nil
                    #'dg-lsp-connection--kill connection)))

(defun dg-lsp-connection--kill (connection)
  "Kill the server of CONNECTION if it has not ended yet."
  (when (jsonrpc-running-p connection)
    (jsonrpc-shutdown connection)))

(defun dg-lsp-connection-restart ()
  "Start the server of this buffer's project anew."
  (let* ((connection (dg-lsp-connection--document-connection
                      dg-lsp-connection--document))
         (buffers (dg-lsp-connection--buffers connection)))
    (dg-lsp-connection--end connection)
    (dolist (buffer buffers)
      (with-current-buffer buffer
        (dg-lsp-connection-attach)))))

(defun dg-lsp-connection-starting-p ()
  "Return non-nil if the server of this buffer has not introduced itself yet."
  (when-let* ((document (dg-lsp-connection--own))
              (connection (dg-lsp-connection--document-connection document)))
    (and (jsonrpc-running-p connection)
         (not (dg-lsp-connection-ready connection)))))

;;;; Buffers

(defun dg-lsp-connection--buffers (connection)
  "Return the buffers that are attached to CONNECTION."
  (cl-remove-if-not
   (lambda (buffer)
     (with-current-buffer buffer
       (when-let* ((document (dg-lsp-connection--own)))
         (eq (dg-lsp-connection--document-connection document) connection))))
   (buffer-list)))

(defun dg-lsp-connection--file-uri (file)
  "Return the URI of FILE."
  (concat "file://" (url-hexify-string (directory-file-name (file-truename file))
                                       url-path-allowed-chars)))

(defun dg-lsp-connection--uri ()
  "Return the URI of this buffer."
  (if buffer-file-name
      (dg-lsp-connection--file-uri buffer-file-name)
    (concat "untitled:" (url-hexify-string (buffer-name)))))

(defun dg-lsp-connection--language ()
  "Return the server's name for the language of this buffer."
  (pcase (replace-regexp-in-string "\\(-ts\\)?-mode\\'" ""
                                   (symbol-name major-mode))
    ((or "js" "js2") "javascript")
    ("c++" "cpp")
    ((or "sh" "bash") "shellscript")
    (name name)))

(defun dg-lsp-connection--root ()
  "Return the directory of the project of this buffer."
  (file-name-as-directory
   (file-truename (if-let* ((project (project-current)))
                      (project-root project)
                    default-directory))))

(defun dg-lsp-connection-attach ()
  "Tell a server of this buffer and of its edits from now on."
  (dg-lsp-connection-detach)
  (setq dg-lsp-connection--document
        (dg-lsp-connection--make-document
         :connection (dg-lsp-connection--for (dg-lsp-connection--root))
         :buffer (current-buffer)
         :uri (dg-lsp-connection--uri)))
  (pcase-dolist (`(,hook . ,function) dg-lsp-connection--hooks)
    (add-hook hook function nil t))
  (when (dg-lsp-connection-current)
    (dg-lsp-connection--open (current-buffer))))

(defun dg-lsp-connection--forget ()
  "Have nothing to do with a server in this buffer any more."
  (setq dg-lsp-connection--document nil)
  (pcase-dolist (`(,hook . ,function) dg-lsp-connection--hooks)
    (remove-hook hook function t)))

(defun dg-lsp-connection-detach ()
  "Let the server forget this buffer, and end it after the last one."
  (when-let* ((document (dg-lsp-connection--own))
              (connection (dg-lsp-connection--document-connection document)))
    (when (and (dg-lsp-connection-current) (jsonrpc-running-p connection))
      (jsonrpc-notify connection :textDocument/didClose
                      (list :textDocument
                            (list :uri (dg-lsp-connection--document-uri
                                        document)))))
    (dg-lsp-connection--forget)
    ;; Not at once: a buffer that is reverted comes back.
    (run-with-timer dg-lsp-connection--patience nil
                    #'dg-lsp-connection--end-if-idle connection)))

;;;; Text

(defun dg-lsp-connection--synced (document)
  "Note that DOCUMENT is the same as this buffer now."
  (setf (dg-lsp-connection--document-tick document) (buffer-chars-modified-tick)
        (dg-lsp-connection--document-newlines document)
        (save-restriction (widen) (dg-lsp-connection--line (point-max)))
        (dg-lsp-connection--document-noted document) (buffer-chars-modified-tick)
        (dg-lsp-connection--document-head document) (buffer-size)
        (dg-lsp-connection--document-tail document) (buffer-size)))

(defun dg-lsp-connection--open (buffer)
  "Tell the server of BUFFER."
  (with-current-buffer buffer
    (let ((document dg-lsp-connection--document))
      (jsonrpc-notify
       (dg-lsp-connection--document-connection document) :textDocument/didOpen
       (list :textDocument
             (list :uri (dg-lsp-connection--document-uri document)
                   :languageId (dg-lsp-connection--language)
                   :version (dg-lsp-connection--document-version document)
                   :text (dg-lsp-connection--text))))
      (dg-lsp-connection--synced document))
    (force-mode-line-update)))

(defconst dg-lsp-connection--no-character
  "[\ud800-\udfff\x110000-\x3fff7f\x3fff80-\x3fffff]"
  "What Emacs has in a text and JSON cannot have: raw bytes, for instance.")

(defun dg-lsp-connection--text (&optional start end)
  "Return the text from START to END, or the whole, as JSON can have it.
It is as long as in the buffer, so that positions are the same."
  (save-restriction
    (widen)
    (replace-regexp-in-string
     dg-lsp-connection--no-character "\ufffd"
     (string-to-multibyte
      (buffer-substring-no-properties (or start (point-min))
                                      (or end (point-max)))))))

(defun dg-lsp-connection--check (_start _end)
  "Notice an edit of which no hook was told."
  (when-let* ((document (dg-lsp-connection--own)))
    (unless (eql (dg-lsp-connection--document-noted document)
                 (buffer-chars-modified-tick))
      (setf (dg-lsp-connection--document-noted document) nil))))

(defun dg-lsp-connection--note (start end _length)
  "Note that what is now from START to END is not as the server knows it."
  (when-let* ((document (dg-lsp-connection--own)))
    (when (dg-lsp-connection--document-noted document)
      (cl-callf min (dg-lsp-connection--document-head document) (1- start))
      (cl-callf min (dg-lsp-connection--document-tail document)
        (- (buffer-size) (1- end)))
      (setf (dg-lsp-connection--document-noted document)
            (buffer-chars-modified-tick)))))

(defun dg-lsp-connection--line (position)
  "Return the number of line breaks before POSITION."
  (1- (line-number-at-pos position t)))

(defun dg-lsp-connection--change (document)
  "Return the change from DOCUMENT to this buffer, in whole lines.
Columns are 0 everywhere, so nothing must be known of the old text but
how many lines it had."
  (save-excursion
    (save-restriction
      (widen)
      (goto-char (1+ (dg-lsp-connection--document-head document)))
      (forward-line 0)
      (let* ((start (point))
             (end (progn
                    (goto-char (- (point-max)
                                  (dg-lsp-connection--document-tail document)))
                    ;; Only behind a line break that was there before is the
                    ;; beginning of a line one in the old text too.
                    (search-forward "\n" nil t)))
             (behind (and end (- (dg-lsp-connection--line (point-max))
                                 (dg-lsp-connection--line end))))
             (newlines (dg-lsp-connection--document-newlines document)))
        (list :range
              (list :start (list :line (dg-lsp-connection--line start)
                                 :character 0)
                    :end (if end
                             (list :line (- newlines behind) :character 0)
                           ;; Beyond the end of a line is its end.
                           (list :line newlines :character 1000000000)))
              :text (dg-lsp-connection--text start end))))))

(cl-defmethod dg-lsp-server-flush ((server dg-lsp-connection))
  "Tell SERVER what has changed in this buffer."
  (let ((document dg-lsp-connection--document))
    (unless (eql (dg-lsp-connection--document-tick document)
                 (buffer-chars-modified-tick))
      (cl-incf (dg-lsp-connection--document-version document))
      (jsonrpc-notify
       server :textDocument/didChange
       (list :textDocument
             (list :uri (dg-lsp-connection--document-uri document)
                   :version (dg-lsp-connection--document-version document))
             :contentChanges
             (vector (if (eql (dg-lsp-connection--document-noted document)
                              (buffer-chars-modified-tick))
                         (dg-lsp-connection--change document)
                       (list :text (dg-lsp-connection--text))))))
      (dg-lsp-connection--synced document))))

(cl-defmethod dg-lsp-server-place ((_server dg-lsp-connection))
  "Return line and code points before point."
  (list :textDocument (list :uri (dg-lsp-connection--document-uri
                                  dg-lsp-connection--document))
        :position
        (save-restriction
          (widen)
          (list :line (dg-lsp-connection--line (point))
                :character (- (point) (save-excursion (forward-line 0)
                                                      (point)))))))

(cl-defmethod dg-lsp-server-version ((_server dg-lsp-connection))
  "Return how often this buffer has been sent."
  (dg-lsp-connection--document-version dg-lsp-connection--document))

(cl-defmethod dg-lsp-server-point ((_server dg-lsp-connection) position)
  "Return where the line and code points of POSITION are."
  (save-excursion
    (save-restriction
      (widen)
      (goto-char (point-min))
      (forward-line (plist-get position :line))
      (min (line-end-position)
           (+ (point) (plist-get position :character))))))

(provide 'dg-lsp-connection)
;;; dg-lsp-connection.el ends here
